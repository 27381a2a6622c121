"""The station file: one strict, typed YAML page, read once and frozen."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import plugins
from pipeline.errors import ConfigError
from pipeline.limits import read_bounded
from pipeline.plain_yaml import PlainLoader
from pipeline.recipe import Recipe

MAX_BYTES = 256 * 1024
Level = Annotated[str, Field(pattern="^[a-z0-9_-]{1,64}$")]


TimeOfDay = Annotated[str, Field(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PluginSection(BaseModel):
    """``kind`` and whatever that kind's own Options take."""

    model_config = ConfigDict(extra="allow", frozen=True)
    kind: str


class StationSection(_Section):
    """Who this station is, by the levels of ISA-95; it becomes the MQTT topic."""

    enterprise: Level = "enterprise"
    site: Level = "site"
    area: Level = "area"
    line: Level = "line"
    name: Level


class TrustSection(_Section):
    """Whose bundles may run.

    Attributes:
        keys: files of public keys, relative to this file; a bundle must be signed by one of them.
        unsigned: a bundle without a signature runs too, and the station is degraded.
    """

    keys: Annotated[tuple[str, ...], Field(min_length=1, max_length=32)]
    unsigned: bool = False


class TrialSection(_Section):
    """What the child process that loads a model first may take.

    Attributes:
        memory_mb: memory that it writes to, MiB.
        seconds: until it must have loaded the model and passed the self-test.
    """

    memory_mb: Annotated[int, Field(ge=256)] = 4096
    seconds: Annotated[int, Field(ge=5, le=3600)] = 120


class TilingSection(_Section):
    """How a part is looked at that is larger than the model's input.

    Attributes:
        overlap_px: pixels that neighbouring tiles share at least: the size of the largest defect
            that must be seen whole. Below half of the model's input.
    """

    overlap_px: Annotated[int, Field(ge=0, le=4096)] = 96


class TemplateSection(_Section):
    """The part without a defect that a model which compares lays every other part beside.

    Attributes:
        picture: of that part alone, relative to this file; ``lineguard template`` cuts it out.
        sha256: of that file: the picture belongs to the verdict, and this to every record.
    """

    picture: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class ModelSection(_Section):
    """Which bundle runs on what.

    Attributes:
        bundle: folder of the bundle, relative to this file.
        artefact: name of one of its artefacts; None takes the first one that the runtime may run.
        trust: whose bundles may run; None asks for no signature.
        trial: bounds of the child process that loads the model first.
        self_test_at: local times of day, HH:MM, at which the self-test is repeated: the shifts.
        mode: ``latency`` looks at one picture at a time with all cores: the shortest way to a
            verdict. ``throughput`` looks at several at once, each with its share of the cores: the
            most pictures per second, for replays and for lines whose parts come closely; a single
            verdict takes longer. The records are the same.
        workers: how many pictures at once in ``throughput``; 0 takes one per core.
        tiling: a part larger than the model's input is looked at in tiles of that size, at its own
            scale; None scales it down, and small defects with it.
        template: for a bundle whose model compares, and for no other.
    """

    bundle: str
    runtime: PluginSection
    artefact: str | None = None
    trust: TrustSection | None = None
    trial: TrialSection = TrialSection()
    self_test_at: Annotated[tuple[TimeOfDay, ...], Field(max_length=24)] = ()
    mode: Annotated[str, Field(pattern="^(latency|throughput)$")] = "latency"
    workers: Annotated[int, Field(ge=0, le=64)] = 0
    tiling: TilingSection | None = None
    template: TemplateSection | None = None


class PartsSection(_Section):
    """How a part is followed and looked at.

    Attributes:
        views: pictures of one part that the model looks at, at most, spread over its way.
        lost_after_frames: frames without a sighting after which a part has left.
        decide_at: where along the way a part is decided, share of the frame; None decides it as
            soon as it has been looked at often enough, or begins to leave.
        sure_by: a part is looked at no more once its verdict would stay the same if all of its
            scores moved by this much; None looks at all views. ``recipe.min_views`` still holds.
        half_turns: every second view is turned by 180 degrees before it is looked at; for models
            trained with mirrored pictures: what only seems a defect seldom does so both ways.
    """

    views: Annotated[int, Field(ge=1, le=1000)] = 5
    lost_after_frames: Annotated[int, Field(ge=1, le=1000)] = 3
    decide_at: Annotated[float, Field(gt=0, lt=1)] | None = None
    sure_by: Annotated[float, Field(ge=0, lt=1)] | None = None
    half_turns: bool = False


Milliseconds = Annotated[int, Field(ge=1, le=600_000)]


class GateSection(_Section):
    """How long station and PLC may take before the line gets UNSURE or is inhibited, milliseconds.

    Attributes:
        deadline_ms: from the trigger (or the exposure that decided the part) to the verdict.
        ack_ms: a result that is not acknowledged for so long stops the line until a reset.
        plc_silent_ms: a PLC whose heartbeat stands still for so long is gone.
        station_silent_ms: a station without a sign of life for so long is gone.
        heartbeat_ms: the guard's own heartbeat counts up this often.
    """

    deadline_ms: Milliseconds = 500
    ack_ms: Milliseconds = 1000
    plc_silent_ms: Milliseconds = 400
    station_silent_ms: Milliseconds = 400
    heartbeat_ms: Milliseconds = 100


class StoreSection(_Section):
    """Where the ledger and the pictures lie.

    Attributes:
        path: folder, relative to this file; made if it is not there.
        pictures: which parts' pictures are kept.
        keep_pictures_mb: the oldest pictures are deleted above this, those of good parts first;
            records are never deleted.
        reserve_mb: room that is held for records and let go when the disk is full; 0 holds none.
        commit: whether a record is on the disk before the outputs are told (no decision can be
            lost), or after (the outputs do not wait for the disk; a crash in between loses one).
        gather_ms: decisions that come within so many milliseconds of one are committed with it: it
            takes less of the processor, and the outputs wait for it as long. None takes none in
            the latency mode, 30 in the throughput mode.
    """

    path: str
    pictures: Annotated[str, Field(pattern="^(all|rejects|none)$")] = "rejects"
    keep_pictures_mb: Annotated[int, Field(ge=1)] = 2000
    reserve_mb: Annotated[int, Field(ge=0, le=1 << 20)] = 64
    commit: Annotated[str, Field(pattern="^(before_act|after_act)$")] = "before_act"
    gather_ms: Annotated[int, Field(ge=0, le=1000)] | None = None


class HealthSection(_Section):
    """How the station looks after itself and tells how it is.

    Attributes:
        port: of /healthz, /readyz and /metrics; None serves nothing, 0 takes a free one.
        host: address that they are served on. They take no command and tell no secret, but whoever
            reaches them sees the line's figures.
        camera_stall_ms: a live camera without a frame for so long is at fault; None takes one
            second or three frame times, and no limit where the camera itself is triggered.
        frozen_ms: a worker that is at one step for so long is at fault.
    """

    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    host: str = "127.0.0.1"
    camera_stall_ms: Annotated[int, Field(ge=100, le=3_600_000)] | None = None
    frozen_ms: Annotated[int, Field(ge=1000, le=600_000)] = 10_000


class LiveSection(_Section):
    """What a running station shows to other processes on its machine.

    Attributes:
        path: folder for it, in memory; None takes one that follows from the store's path.
        fps: frames per second that are shown at most.
        width: pixels that a shown frame is wide at most.
    """

    path: str | None = None
    fps: Annotated[int, Field(ge=1, le=60)] = 30
    width: Annotated[int, Field(ge=160, le=1920)] = 640


class Document(_Section):
    """The whole station file as written."""

    station: StationSection
    camera: PluginSection
    trigger: PluginSection
    model: ModelSection
    parts: PartsSection = PartsSection()
    recipe: Recipe
    store: StoreSection
    health: HealthSection = HealthSection()
    gate: GateSection = GateSection()
    live: LiveSection = LiveSection()
    outputs: tuple[PluginSection, ...] = ()
    publishers: tuple[PluginSection, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """A plugin that the file names, with its options checked."""

    kind: str
    options: Any


@dataclass(frozen=True, slots=True)
class StationConfig:
    """A station file that is right in itself: every kind exists, every option fits.

    Attributes:
        file: the file itself, absolute.
        base: folder of the file; relative paths start there.
        sha256: of the document in canonical JSON; it stands in every record.
    """

    file: Path
    base: Path
    document: Document
    camera: Choice
    trigger: Choice
    runtime: Choice
    outputs: tuple[Choice, ...]
    publishers: tuple[Choice, ...]
    sha256: str

    @property
    def bundle_path(self) -> Path:
        return self.base / self.document.model.bundle

    @property
    def template_path(self) -> Path | None:
        template = self.document.model.template
        return None if template is None else self.base / template.picture

    @property
    def trusted_keys(self) -> tuple[Path, ...]:
        trust = self.document.model.trust
        return tuple(self.base / key for key in trust.keys) if trust else ()

    @property
    def store_path(self) -> Path:
        return self.base / self.document.store.path


def load(file: Path, overrides: dict[str, Any] | None = None) -> StationConfig:
    """Read and check a station file.

    Args:
        file: YAML, at most 256 KiB, without aliases.
        overrides: whole sections that replace those of the file, e.g. ``{"camera": {...}}``.

    Raises:
        ConfigError: with the file, the key and what is wrong with it.
    """
    data = _read_yaml(file) | (overrides or {})
    document: Document = _validated(Document, data, file, "")
    resolved = file.resolve()
    base = resolved.parent
    chosen = {
        where: _choice(file, base, where, family, section)
        for where, family, section in _plugin_sections(document)
    }
    _check_gate(file, chosen)
    if chosen["trigger"].kind == "plc" and document.model.mode == "throughput":
        raise ConfigError(
            f"{file}: model.mode: a part of the trigger 'plc' has a deadline, and must not "
            "share the cores with others; use latency"
        )
    if document.model.template is not None and document.parts.half_turns:
        raise ConfigError(
            f"{file}: parts.half_turns: a part that was turned does not lie on model.template; "
            "take one of both out"
        )
    canonical = json.dumps(document.model_dump(mode="json"), sort_keys=True).encode()
    return StationConfig(
        file=resolved,
        base=base,
        document=document,
        camera=chosen["camera"],
        trigger=chosen["trigger"],
        runtime=chosen["model.runtime"],
        outputs=tuple(c for where, c in chosen.items() if where.startswith("outputs.")),
        publishers=tuple(c for where, c in chosen.items() if where.startswith("publishers.")),
        sha256=hashlib.sha256(canonical).hexdigest(),
    )


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a station file, the options of every built-in kind included."""
    document = Document.model_json_schema()
    for family in plugins.FAMILIES:
        for kind in plugins.kinds(family):
            options = plugins.load(family, kind).Options.model_json_schema()
            document["$defs"][f"{family}.{kind}"] = options
    return document


def _plugin_sections(document: Document) -> Iterator[tuple[str, str, PluginSection]]:
    yield "camera", "cameras", document.camera
    yield "trigger", "triggers", document.trigger
    yield "model.runtime", "runtimes", document.model.runtime
    for i, section in enumerate(document.outputs):
        yield f"outputs.{i}", "outputs", section
    for i, section in enumerate(document.publishers):
        yield f"publishers.{i}", "publishers", section


def _choice(file: Path, base: Path, where: str, family: str, section: PluginSection) -> Choice:
    try:
        plugin = plugins.load(family, section.kind)
    except ConfigError as error:
        raise type(error)(f"{file}: {where}.kind: {error}") from error
    given = section.model_extra or {}
    return Choice(section.kind, _validated(plugin.Options, given, file, where, base))


def _check_gate(file: Path, chosen: dict[str, Choice]) -> None:
    """See that one PLC leads the handshake, and that there is one where the trigger needs it."""
    leading = [where for where, c in chosen.items() if getattr(c.options, "listen", False)]
    if len(leading) > 1:
        raise ConfigError(
            f"{file}: {leading[1]}: {leading[0]} already leads the handshake; "
            f"set {leading[1]}.listen to false"
        )
    if chosen["trigger"].kind == "plc" and not leading:
        raise ConfigError(
            f"{file}: trigger.kind: 'plc' needs an output that hears a PLC; "
            "add one to outputs, e.g. {kind: modbus}"
        )


def _validated(
    model: type[Any], data: Any, file: Path, where: str, base: Path | None = None
) -> Any:
    """Check ``data`` as JSON: strict, but a YAML list may become a tuple and text a path."""
    try:
        return model.model_validate_json(json.dumps(data), context={"base": base})
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join([*([where] if where else []), *(str(p) for p in first["loc"])])
        said = f"{path}: {_said(first, model)}" if path else _said(first, model)
        raise ConfigError(f"{file}: {_one_line(said)}") from error


def _said(first: Any, model: type[Any]) -> str:
    if first["type"] == "extra_forbidden":
        hint = f"; known here: {', '.join(model.model_fields)}" if len(first["loc"]) == 1 else ""
        return f"unknown key{hint}"
    if first["type"] == "missing":
        return "this key is missing"
    got = first.get("input")
    return f"{first['msg']} (it is {got!r:.60})"


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        page = read_bounded(file, MAX_BYTES)
    except ValueError as error:
        raise ConfigError(f"{file}: {error}; this is no station file") from error
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; see configs/ for station files") from error
    try:
        data = yaml.load(page.decode("utf-8"), PlainLoader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not a readable YAML page: {_one_line(error)}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: a station file is a mapping of sections")
    return data


def _one_line(said: object) -> str:
    return " ".join(str(said).split())
