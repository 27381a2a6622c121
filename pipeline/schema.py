"""How a record leaves the station: canonical JSON, its hash, the event around it, their schemas."""

import hashlib
import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import ConfigError, StoreError
from pipeline.limits import each_once, no_constant
from pipeline.types import RECORD_SCHEMA, DefectRow, Record, Stages, Verdict

MAX_BYTES = 64 * 1024
EVENT_TYPE = "io.lineguard.inspection.v1"
"""Rises with a change that breaks readers; a new key does not."""
EVENT_CONTENT = "application/cloudevents+json"
RECORD_URI = f"urn:lineguard:schema:record:{RECORD_SCHEMA}"
EVENT_URI = f"urn:lineguard:schema:event:{RECORD_SCHEMA}"
OFFLINE: Mapping[str, Any] = {"ready": False, "state": "offline"}
STOPPED: Mapping[str, Any] = {"ready": False, "state": "stopped"}

_RECORD = TypeAdapter(Record)
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FORMATS = {"id": "uuid", "time": "date-time"}
_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)

EXAMPLE = Record(
    schema=RECORD_SCHEMA,
    id="019aa9c5-1f80-7c3e-9d5b-0f6a1c2b3d4e",
    station="aoi-1",
    run="019aa9c0-5d2c-7b1a-8c11-2a7d5e90f3b6",
    seq=4211,
    part=4211,
    time="2026-01-05T06:41:12.084113Z",
    verdict=Verdict.FAIL,
    reasons=("missing_hole 0.93 >= 0.41",),
    defects=(DefectRow("missing_hole", 0.93, (211.5, 80.25, 236.0, 104.75), 5),),
    views=5,
    first_frame=50530,
    last_frame=50541,
    box=(302.0, 96.0, 942.0, 576.0),
    camera="top",
    recipe="board-a",
    bundle="pcb-n",
    bundle_sha256=hashlib.sha256(b"manifest").hexdigest(),
    artefact_sha256=hashlib.sha256(b"model").hexdigest(),
    config_sha256=hashlib.sha256(b"config").hexdigest(),
    runtime="onnx/CPU/fp32",
    latency_ms=38.412,
    image="2026/01/05/019aa9c5-1f80-7c3e-9d5b-0f6a1c2b3d4e.jpg",
    image_sha256=hashlib.sha256(b"picture").hexdigest(),
    image_box=(288.0, 96.0, 928.0, 576.0),
    image_verdict=Verdict.FAIL,
    previous_sha256=hashlib.sha256(b"previous").hexdigest(),
    stages_ms=Stages(wait=11.204, trigger=1.31, look=131.87, rules=0.204, record=0.482),
)
"""The record that the documents show; tests vary it."""


class Place(Protocol):
    """Anything that knows where a station stands."""

    @property
    def path(self) -> str:
        """``enterprise/site/area/line/station``."""


@dataclass(frozen=True, slots=True)
class _ExamplePlace:
    path: str = "acme/north/smt/line-2/aoi-1"


def as_dict(record: Record) -> dict[str, Any]:
    """Return a record as JSON values: text for enums, lists for tuples, floats where floats belong.

    Raises:
        StoreError: a value is of the wrong type.
    """
    return _plain(_sound(record))


def encode(record: Record) -> bytes:
    """Return a record as canonical JSON: UTF-8, keys sorted, no white space, shortest floats.

    Equal records give equal bytes, so a hash over them proves the record.

    Raises:
        StoreError: a value is of the wrong type, is not a finite number, or the record is larger
            than 64 KiB.
    """
    return _bytes(_sound(record))


def decode(data: bytes) -> Record:
    """Read a record; strict: exactly the known keys, each once, each of its type.

    Raises:
        ConfigError: these bytes are not a record of this version.
    """
    if len(data) > MAX_BYTES:
        raise ConfigError(f"not a record: {len(data)} bytes are more than {MAX_BYTES}")
    record = _as_encoded(data)
    return _read(data) if record is None else record


def version_of(data: bytes) -> object:
    """Return the schema number of a stored record of any version, or None if it has none."""
    try:
        return json.loads(data)["schema"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def sha256(record: Record) -> str:
    """Return the hash of a record, hexadecimal; the record after it holds it."""
    return hashlib.sha256(encode(record)).hexdigest()


def _as_encoded(data: bytes) -> Record | None:
    """Return the record that ``encode`` gives just these bytes for; None if there is none.

    Nearly all that is read was written here: such bytes have no key too many, none twice and none
    of another type, so that nothing else needs to be looked at.
    """
    try:
        record = _RECORD.validate_json(data, strict=True)
        same = record.schema == RECORD_SCHEMA and _bytes(record) == data
    except (ValueError, RecursionError, StoreError):
        return None
    return record if same else None


def _read(data: bytes) -> Record:
    """Read a record that another program may have written; errors as ``decode``."""
    try:
        given = json.loads(data, object_pairs_hook=each_once, parse_constant=no_constant)
        _check_version(given)
        record = _RECORD.validate_json(data, strict=True)
        _bytes(record)
        if given != _plain(record):
            raise ValueError(f"unknown key {_unknown(given)}")
    except ValidationError as error:
        raise ConfigError(f"not a record: {_first(error)}") from error
    except (ValueError, RecursionError, StoreError) as error:
        raise ConfigError(f"not a record: {str(error).splitlines()[0]}") from error
    return record


def _sound(record: Record) -> Record:
    """Return a record whose values are of the right types; errors as ``as_dict``."""
    try:
        return _RECORD.validate_python(_flat(record))
    except ValidationError as error:
        raise StoreError(f"record {record.id}: {_first(error)}; it cannot be stored") from error


def _flat(record: Record) -> dict[str, Any]:
    """Do what ``dataclasses.asdict`` does without its deep copies, most of the cost of a record.

    A key that came later is left out where there is nothing to say: records without it, and the
    hashes over them, stay as they are.
    """
    flat = _fields(record)
    flat["defects"] = _rows(record.defects)
    if record.stages_ms is None:
        del flat["stages_ms"]
    else:
        flat["stages_ms"] = _rows(record.stages_ms)
    return flat


def _rows(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_rows(row) for row in value)
    return _fields(value) if isinstance(value, DefectRow | Stages) else value


def _fields(row: Record | DefectRow | Stages) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}


def _plain(sound: Record) -> dict[str, Any]:
    """Return a record whose values are of the right types as JSON values."""
    plain: dict[str, Any] = _RECORD.dump_python(sound, mode="json")
    if sound.stages_ms is None:
        del plain["stages_ms"]
    return plain


def _bytes(sound: Record) -> bytes:
    """Write a record whose values are of the right types; errors as ``encode``."""
    try:
        # JSON writes tuples as lists, and an enum of texts as its text: no need to convert them.
        data = canonical(_flat(sound))
    except ValueError as error:
        raise StoreError(f"record {sound.id}: {error}; it cannot be stored") from error
    if len(data) > MAX_BYTES:
        raise StoreError(
            f"record {sound.id}: {len(data)} bytes are more than {MAX_BYTES}; "
            f"it names {len(sound.defects)} defects: raise the thresholds"
        )
    return data


def canonical(value: Mapping[str, Any]) -> bytes:
    """Return JSON whose bytes depend on the content alone.

    Raises:
        ValueError: a number is not finite, or text is not valid Unicode.
    """
    return _CANONICAL.encode(value).encode()


def event(record: Record, address: Place) -> dict[str, Any]:
    """Return a record in a CloudEvents 1.0 envelope (structured mode); ``data`` is all of it."""
    return {"data": as_dict(record), **_envelope(record, address)}


def event_bytes(record: Record, address: Place) -> bytes:
    """Return an event as canonical JSON: ``data``, its first key, is the record as it is hashed.

    Raises:
        StoreError: as ``encode``.
    """
    return b'{"data":' + encode(record) + b"," + canonical(_envelope(record, address))[1:]


def _envelope(record: Record, address: Place) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": record.id,
        "source": f"/{address.path}",
        "type": EVENT_TYPE,
        "time": record.time,
        "datacontenttype": "application/json",
        "dataschema": RECORD_URI,
    }


def example_event() -> dict[str, Any]:
    """Return the event that the documents show."""
    return event(EXAMPLE, _ExamplePlace())


def topic(root: str, address: Place, leaf: str) -> str:
    """Return the MQTT topic of a station: ``inspection``, ``defect``, ``state``, ``ack/...``."""
    return f"{root}/v1/{address.path}/{leaf}"


def record_schema(refs: str = "#/$defs/") -> dict[str, Any]:
    """Return the JSON Schema of a record.

    Args:
        refs: where the document that takes it in keeps its definitions.
    """
    schema = _RECORD.json_schema(ref_template=refs + "{model}")
    _describe(schema, Record)
    for row in (DefectRow, Stages):
        _describe(schema["$defs"][row.__name__], row)
    schema["properties"]["stages_ms"] = {
        "$ref": refs.format(model="") + "Stages",
        "description": schema["properties"]["stages_ms"]["description"],
    }
    schema["properties"]["schema"]["const"] = RECORD_SCHEMA
    for key, format_name in _FORMATS.items():
        schema["properties"][key]["format"] = format_name
    named = {"$schema": _DIALECT, "$id": RECORD_URI, **schema}
    return _with_plain_tuples(named)  # type: ignore[no-any-return]


def event_schema(refs: str = "#/$defs/") -> dict[str, Any]:
    """Return the JSON Schema of an event, complete in itself."""
    record = record_schema(refs)
    definitions = record.pop("$defs")
    del record["$schema"], record["$id"]
    fixed = {
        "specversion": "1.0",
        "type": EVENT_TYPE,
        "datacontenttype": "application/json",
        "dataschema": RECORD_URI,
    }
    properties: dict[str, Any] = {
        "id": {"type": "string", "format": "uuid", "description": "The id of the record."},
        "source": {
            "type": "string",
            "pattern": "^(/[a-z0-9_-]+){5}$",
            "description": "/enterprise/site/area/line/station",
        },
        "time": {"type": "string", "format": "date-time", "description": "When it was decided."},
        **{key: {"type": "string", "const": value} for key, value in fixed.items()},
        "data": {"$ref": f"{refs}Record"},
    }
    return {
        "$schema": _DIALECT,
        "$id": EVENT_URI,
        "title": "Inspection",
        "description": "One decision in a CloudEvents 1.0 envelope.",
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "$defs": {**definitions, "Record": record},
    }


def state_schema() -> dict[str, Any]:
    """Return the JSON Schema of a state message; a station may say more than this."""
    return {
        "title": "State",
        "description": "What the station says of itself, whenever that changes.",
        "type": "object",
        "properties": {
            "state": {"type": "string", "description": "offline, stopped, or what it is doing"},
            "ready": {"type": "boolean", "description": "True while verdicts can be trusted."},
        },
        "required": ["ready", "state"],
    }


def _describe(schema: dict[str, Any], of: type[Any]) -> None:
    """Put the docstring's first line and its attributes where JSON Schema has them."""
    text = inspect.getdoc(of) or ""
    schema["description"] = text.partition("\n")[0]
    for names, said in re.findall(r"^ {4}([a-z0-9_, ]+): (.+(?:\n {8}.+)*)", text, re.MULTILINE):
        for name in names.split(", "):
            schema["properties"][name]["description"] = " ".join(said.split())


def _with_plain_tuples(schema: Any) -> Any:
    """Say "array of n numbers" in the way every draft knows; ``prefixItems`` is 2020-12 only."""
    if isinstance(schema, list):
        return [_with_plain_tuples(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _with_plain_tuples(value) for key, value in schema.items()}
    if "prefixItems" in plain:
        plain["items"] = plain.pop("prefixItems")[0]
    return plain


def _check_version(given: Any) -> None:
    if not isinstance(given, dict):
        raise ValueError("it is not a JSON object")
    version = given.get("schema")
    if type(version) is not int or version != RECORD_SCHEMA:
        raise ValueError(f"schema is {version!r:.60}; this lineguard reads {RECORD_SCHEMA}")


def _unknown(given: dict[str, Any]) -> str:
    here = sorted(set(given) - {field.name for field in fields(Record)})
    return f"{here[0]!r:.60}" if here else "within its defects or stages"


def _first(error: ValidationError) -> str:
    first = error.errors(include_input=False)[0]
    return f"{'.'.join(str(p) for p in first['loc']) or 'record'}: {first['msg']}"
