"""A record's bytes, its hash, the event around it and the documents that describe both."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import interface, schema
from pipeline.errors import ConfigError, LineguardError, StoreError
from pipeline.publishers import Address
from pipeline.schema import EXAMPLE
from pipeline.types import DefectRow, Record, Stages, Verdict

DOCS = Path(__file__).resolve().parent.parent / "docs"
ADDRESS = Address("acme", "north", "smt", "line-2", "aoi-1")

text = st.text(st.characters(codec="utf-8"), max_size=20)
number = st.floats(allow_nan=False, allow_infinity=False)
rows = st.builds(
    DefectRow, text, number, st.tuples(number, number, number, number), st.integers(0, 99)
)


def changed(**values: Any) -> bytes:
    """Return the example's JSON with some keys changed; None as a value is JSON null."""
    return json.dumps({**schema.as_dict(EXAMPLE), **values}).encode()


def without(key: str) -> bytes:
    return json.dumps({k: v for k, v in schema.as_dict(EXAMPLE).items() if k != key}).encode()


def test_a_record_survives_encoding() -> None:
    assert schema.decode(schema.encode(EXAMPLE)) == EXAMPLE


@settings(deadline=None, max_examples=60)
@given(
    verdict=st.sampled_from(Verdict),
    reasons=st.lists(text, max_size=3).map(tuple),
    defects=st.lists(rows, max_size=3).map(tuple),
    latency_ms=number,
    image=st.none() | text,
)
def test_any_record_survives_encoding_and_keeps_its_hash(**values: Any) -> None:
    record = replace(EXAMPLE, **values)
    read = schema.decode(schema.encode(record))
    assert read == record
    assert schema.sha256(read) == schema.sha256(record)


def test_a_record_from_before_stage_times_reads_and_keeps_its_bytes() -> None:
    old = schema.canonical({k: v for k, v in schema.as_dict(EXAMPLE).items() if k != "stages_ms"})
    read = schema.decode(old)
    assert read == replace(EXAMPLE, stages_ms=None)
    assert schema.encode(read) == old


def test_canonical_json_is_sorted_compact_and_unescaped() -> None:
    encoded = schema.encode(replace(EXAMPLE, reasons=("Löcher fehlen",))).decode()
    keys = list(json.loads(encoded))
    assert keys == sorted(keys)
    assert '"reasons":["Löcher fehlen"]' in encoded


def test_whole_numbers_and_numpy_numbers_do_not_change_the_hash() -> None:
    plain = replace(EXAMPLE, latency_ms=3.0, box=(1.0, 2.0, 3.0, 4.0))
    box: Any = (1, np.float32(2), np.float64(3), np.int64(4))
    assert schema.encode(replace(EXAMPLE, latency_ms=3, box=box)) == schema.encode(plain)


def test_the_hash_changes_with_any_field() -> None:
    other: dict[type, Any] = {
        str: "other", int: 7, float: 7.5, tuple: (), type(None): "x", Verdict: Verdict.UNSURE,
        Stages: None,
    }  # fmt: skip
    boxes = ("box", "image_box")
    hashes = {schema.sha256(EXAMPLE)}
    names = [name for name in Record.__dataclass_fields__ if name not in boxes]
    for name in names:
        value = other[type(getattr(EXAMPLE, name))]
        hashes.add(schema.sha256(replace(EXAMPLE, **{name: value})))
    for name in boxes:
        hashes.add(schema.sha256(replace(EXAMPLE, **{name: (1.0, 2.0, 3.0, 4.0)})))
    assert len(hashes) == len(names) + len(boxes) + 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"latency_ms": float("nan")}, "not JSON compliant"),
        ({"latency_ms": float("inf")}, "not JSON compliant"),
        ({"seq": 1.5}, "seq: Input should be a valid integer"),
        ({"verdict": "GOOD"}, "verdict: Input should be 'PASS', 'FAIL' or 'UNSURE'"),
        ({"reasons": ("\ud800",)}, "surrogates not allowed"),
        ({"reasons": ("x" * 70000,)}, "bytes are more than 65536"),
    ],
)
def test_a_record_that_could_not_be_read_back_is_not_encoded(
    values: dict[str, Any], said: str
) -> None:
    with pytest.raises(StoreError, match=said):
        schema.encode(replace(EXAMPLE, **values))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe\x00", "not a record"),
        (b"[]", "not a JSON object"),
        (b"[" * 60000, "not a record"),
        (b"9" * 60000, "not a record"),
        (b" " * 70000, "bytes are more than 65536"),
        (changed(schema=3), "schema is 3; this lineguard reads 2"),
        (changed(schema=True), "schema is True"),
        (changed(extra=1), "unknown key 'extra'"),
        (
            changed(defects=[{"label": "a", "score": 1, "xyxy": [0, 0, 1, 1], "votes": 1, "x": 1}]),
            "unknown key within its defects or stages",
        ),
        (changed(seq="1"), "seq: Input should be a valid integer"),
        (changed(verdict="pass"), "verdict: Input should be"),
        (changed(box=[1, 2, 3]), "box.3: Field required"),
        (changed(stages_ms={"wait": 1}), "stages_ms.trigger: Field required"),
        (changed(reasons=None), "reasons: Input should be a valid"),
        (changed(latency_ms=float("nan")), "NaN is not a number in JSON"),
        (changed().replace(b"38.412", b"1e999"), "not a record"),
        (changed().replace(b'"seq": 4211', b'"seq": 4211, "seq": 1'), "'seq' appears twice"),
        (without("id"), "id: Field required"),
    ],
)
def test_garbage_is_refused_in_one_line(data: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        schema.decode(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@settings(deadline=None, max_examples=200)
@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | text,
        lambda inner: st.lists(inner) | st.dictionaries(text, inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_bytes_raise_anything_but_our_error(data: bytes) -> None:
    with pytest.raises(LineguardError):
        schema.decode(data)


def test_an_event_carries_the_whole_record() -> None:
    event = schema.event(EXAMPLE, ADDRESS)
    assert event["id"] == EXAMPLE.id
    assert event["source"] == "/acme/north/smt/line-2/aoi-1"
    assert schema.decode(schema.canonical(event["data"])) == EXAMPLE


@pytest.mark.parametrize("record", [EXAMPLE, replace(EXAMPLE, stages_ms=None, reasons=("Löcher",))])
def test_an_event_is_written_as_canonical_json_around_the_record(record: Record) -> None:
    written = schema.event_bytes(record, ADDRESS)
    assert written == schema.canonical(schema.event(record, ADDRESS))
    assert schema.encode(record) in written


def test_a_record_that_is_written_otherwise_is_the_same_record() -> None:
    assert schema.decode(changed()) == EXAMPLE


def test_a_receiver_can_compute_the_hash_from_the_event() -> None:
    received = json.loads(json.dumps(schema.event(EXAMPLE, ADDRESS), indent=1))
    text = json.dumps(received["data"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == schema.sha256(EXAMPLE)


def test_an_event_keeps_the_rules_of_cloudevents() -> None:
    event = schema.event(EXAMPLE, ADDRESS)
    assert event["specversion"] == "1.0"
    assert {"id", "source", "type"} <= set(event)
    assert all(key.isalnum() and key.islower() for key in event)


def test_events_and_records_are_valid_by_the_committed_schemas() -> None:
    for name, document in (
        ("record.json", schema.as_dict(EXAMPLE)),
        ("event.json", schema.event(EXAMPLE, ADDRESS)),
    ):
        rules = json.loads((DOCS / "schema" / name).read_text(encoding="utf-8"))
        validator = jsonschema.Draft202012Validator(
            rules, format_checker=jsonschema.FormatChecker()
        )
        validator.check_schema(rules)
        validator.validate(document)


def test_the_committed_schema_refuses_an_event_with_a_wrong_verdict() -> None:
    rules = json.loads((DOCS / "schema" / "event.json").read_text(encoding="utf-8"))
    event = schema.event(EXAMPLE, ADDRESS)
    event["data"]["verdict"] = "GOOD"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(event, rules)


def test_every_field_of_a_record_is_described() -> None:
    properties = schema.record_schema()["properties"]
    assert [name for name, rules in properties.items() if not rules.get("description")] == []


@pytest.mark.parametrize("name", sorted(interface.documents()))
def test_the_committed_documents_are_current(name: str) -> None:
    committed = (DOCS / name).read_text(encoding="utf-8")
    current = interface.documents()[name]
    same = yaml.safe_load(committed) == yaml.safe_load(current)
    assert same, "run: python -m pipeline.interface docs"


def test_documents_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    interface.write_documents(tmp_path)
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*")} == set(
        interface.documents()
    )


def test_asyncapi_is_valid_by_its_specification() -> None:
    named = os.environ.get("LINEGUARD_ASYNCAPI_SCHEMA")
    if named is None or not Path(named).is_file():
        pytest.skip("set LINEGUARD_ASYNCAPI_SCHEMA to schemas/3.0.0.json of npm @asyncapi/specs")
    rules = json.loads(Path(named).read_text(encoding="utf-8"))
    document = yaml.safe_load((DOCS / "asyncapi.yaml").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator(rules).validate(document)


def test_every_reference_in_asyncapi_leads_somewhere() -> None:
    document = yaml.safe_load((DOCS / "asyncapi.yaml").read_text(encoding="utf-8"))
    references = set(_references(document))
    assert references
    for reference in references:
        node = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_the_example_in_the_manual_is_a_real_event() -> None:
    page = (DOCS / "mqtt.md").read_text(encoding="utf-8")
    block = page.split("```json\n")[1].split("```")[0]
    assert json.loads(block) == schema.example_event()


def _references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for item in node for found in _references(item)]
    if not isinstance(node, dict):
        return []
    here = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return here + [found for value in node.values() for found in _references(value)]
