"""A station file that is wrong says so in one line, with the file and the key."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import MAX_BYTES, StationConfig, load, schema
from pipeline.errors import ConfigError
from tests.conftest import REPOSITORY

Page = dict[str, Any]


def page() -> Page:
    return {
        "station": {"name": "aoi-1"},
        "camera": {"kind": "video", "path": "clips/line.mp4"},
        "trigger": {"kind": "presence"},
        "model": {"bundle": "../models/boards", "runtime": {"kind": "scripted"}},
        "recipe": {"name": "board-a", "defects": {"open": {"fail": 0.5}}},
        "store": {"path": "/var/lib/lineguard"},
        "outputs": [{"kind": "recording"}],
        "publishers": [{"kind": "file", "path": "events.jsonl"}],
    }


def written(folder: Path, content: Page | str | bytes) -> Path:
    file = folder / "station.yaml"
    text = yaml.safe_dump(content) if isinstance(content, dict) else content
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def loaded(folder: Path, content: Page | str | bytes) -> StationConfig:
    return load(written(folder, content))


def refused(folder: Path, content: Page | str | bytes) -> str:
    """Return what is said of a wrong page, less the file's name, which must come first."""
    file = written(folder, content)
    with pytest.raises(ConfigError) as said:
        load(file)
    message = str(said.value)
    assert "\n" not in message
    assert message.startswith(f"{file}: ")
    return message.removeprefix(f"{file}: ")


def test_a_page_is_read_with_safe_defaults(tmp_path: Path) -> None:
    config = loaded(tmp_path, page())
    document = config.document
    assert (document.parts.views, document.store.pictures) == (5, "rejects")
    assert (config.camera.kind, config.camera.options.loop) == ("video", False)
    assert [c.kind for c in config.outputs] == ["recording"]


def test_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    config = loaded(tmp_path, page())
    assert config.camera.options.path == tmp_path / "clips/line.mp4"
    assert config.bundle_path == tmp_path / "../models/boards"
    assert config.store_path == Path("/var/lib/lineguard")
    assert config.publishers[0].options.path == tmp_path / "events.jsonl"


def _set(path: str, value: Any) -> Callable[[Page], None]:
    *outer, last = path.split(".")

    def change(data: Page) -> None:
        here: Any = data
        for key in outer:
            here = here[int(key)] if key.isdigit() else here[key]
        here[last] = value

    return change


def _drop(path: str) -> Callable[[Page], None]:
    *outer, last = path.split(".")

    def change(data: Page) -> None:
        here: Any = data
        for key in outer:
            here = here[key]
        del here[last]

    return change


WRONG_KEYS: dict[str, tuple[Callable[[Page], None], str]] = {
    "unknown section": (_set("lights", {}), "lights: unknown key; known here: station, camera,"),
    "unknown key": (_set("store.size", 1), "store.size: unknown key"),
    "unknown option": (_set("camera.colour", 1), "camera.colour: unknown key; known here: path,"),
    "unknown option in a list": (_set("publishers.0.topic", "a"), "publishers.0.topic: unknown"),
    "unknown key deep down": (
        _set("recipe.defects.open.color", 1), "recipe.defects.open.color: unknown key"),
    "a key with a line break": (_set("a\nb", 1), "a b: unknown key"),
    "missing section": (_drop("camera"), "camera: this key is missing"),
    "missing key": (_drop("model.bundle"), "model.bundle: this key is missing"),
    "missing option": (_drop("camera.path"), "camera.path: this key is missing"),
    "missing kind": (_drop("trigger.kind"), "trigger.kind: this key is missing"),
    "text for a number": (_set("parts", {"views": "5"}), "parts.views: Input should be a"),
    "number for text": (_set("station.name", 5), "station.name: Input should be a valid string"),
    "a YAML no": (_set("station.name", False), "station.name: Input should be a valid str"),
    "true for a number": (_set("parts", {"views": True}), "parts.views: Input should be a valid"),
    "text for a section": (_set("camera", "video"), "camera: "),
    "list for a section": (_set("store", []), "store: "),
    "out of range": (_set("parts", {"decide_at": 1.0}), "parts.decide_at: Input should be less"),
    "not a number": (_set("parts", {"decide_at": float("nan")}), "parts.decide_at: Input"),
    "a name for no topic": (_set("station.name", "AOI 1"), "station.name: String should match"),
    "a zone inside out": (
        _set("recipe.zones", [{"name": "a", "xyxy": [0.5, 0, 0.5, 1]}]),
        "recipe.zones.0: Value error, a zone needs left < right"),
    "unknown camera": (_set("camera.kind", "webcam"), "camera.kind: cameras: there is no kind"),
    "unknown runtime": (_set("model.runtime.kind", "abacus"), "model.runtime.kind: runtimes:"),
    "unknown publisher": (_set("publishers.0.kind", "fax"), "publishers.0.kind: publishers: there"),
    "a private kind": (_set("publishers.0.kind", "_broker"), "publishers.0.kind: publishers:"),
    "a kind that is a path": (_set("camera.kind", "../store"), "camera.kind: cameras: there is no"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG_KEYS)
def test_a_wrong_key_is_named(tmp_path: Path, what: str) -> None:
    change, said = WRONG_KEYS[what]
    data = page()
    change(data)
    assert refused(tmp_path, data).startswith(said)


WRONG_PAGES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "a station file is a mapping of sections"),
    "a list": ("- a\n- b", "a station file is a mapping of sections"),
    "text": ("hello", "a station file is a mapping of sections"),
    "broken": ("camera: {kind: video", "not a readable YAML page"),
    "an alias": ("a: &x {b: 1}\nc: *x", "line 2: no aliases here"),
    "an alias to nothing": ("*x", "no aliases here"),
    "a merge": ("<<: {a: 1}", "line 1"),
    "a tag": ("a: !!python/object/apply:os.system [ls]", "no tags here"),
    "a wrong tag": ("a: !!bool maybe", "no tags here"),
    "a date": ("station:\n  name: 2026-01-01", "line 2: this is a timestamp to YAML; put it in"),
    "a key twice": ("camera: {}\nstore: {}\ncamera: {}", "line 3: key 'camera' appears twice"),
    "a key twice deep down": ("a:\n  - b:\n      c: 1\n      c: 2", "line 4: key 'c' appears"),
    "a key that is no text": ("1: a", "line 1: key 1 is not text"),
    "a key that is a list": ("? [a]\n: b", "is not text"),
    "too deep": ("[" * 100, "nested deeper than 20 levels"),
    "deep, in blocks": ("- " * 100, "nested deeper than 20 levels"),
    "too large": ("#" * (MAX_BYTES + 1), "larger than 256 KiB"),
    "not UTF-8": (b"station: \xff\xfe\x80", "not a readable YAML page"),
    "UTF-16": ("station: {}".encode("utf-16"), "not a readable YAML page"),
    "binary": (bytes(range(256)), "not a readable YAML page"),
    "an endless number": ("a: " + "1" * 5000, ""),
    "half a character": ('a: "\\ud800"', "Invalid JSON"),
    "two pages": ("a: 1\n---\nb: 2", "not a readable YAML page"),
}


@pytest.mark.parametrize("what", WRONG_PAGES)
def test_a_page_that_is_none_is_refused(tmp_path: Path, what: str) -> None:
    content, said = WRONG_PAGES[what]
    assert said in refused(tmp_path, content)


def test_a_page_of_very_many_keys_is_refused(tmp_path: Path) -> None:
    """It once took a comparison of every key with every other: minutes for the largest page."""
    many = "".join(f"{i:x}x: 1\n" for i in range(MAX_BYTES // 10))
    assert refused(tmp_path, many)


@pytest.mark.parametrize("name", ["absent.yaml", ".", "/dev/zero", "pipe"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: opening it would wait for ever
    known = r"No such file|Is a directory|not a regular file"
    with pytest.raises(ConfigError, match=known) as said:
        load(tmp_path / name)
    assert "\n" not in str(said.value)


# --- overrides and the hash


MODBUS = {"kind": "modbus"}
THROUGHPUT = {"bundle": "b", "runtime": {"kind": "onnx"}, "mode": "throughput"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trigger": {"kind": "plc"}}, ("trigger.kind", "'plc' needs an output", "kind: modbus")),
        (
            {"trigger": {"kind": "plc"}, "outputs": [MODBUS], "model": THROUGHPUT},
            ("model.mode", "'plc'", "use latency"),
        ),
        ({"outputs": [MODBUS, {"kind": "opcua"}]}, ("outputs.1", "outputs.0 already leads")),
        ({"outputs": [MODBUS | {"port": 70000}]}, ("outputs.0.port", "65535")),
        ({"outputs": [MODBUS | {"prot": 502}]}, ("outputs.0.prot", "unknown key", "port")),
        ({"outputs": [{"kind": "opcua", "host": "0.0.0.0"}]}, ("outputs.0", "name certificate")),
        ({"outputs": [{"kind": "opcua", "nodeset": "gone.xml"}]}, ("gone.xml", "no such file")),
        ({"outputs": [{"kind": "gpio"}]}, ("outputs.0", "no line is named; set gate")),
        ({"outputs": [{"kind": "gpio", "gate": 3, "shown": {"ok": 3}}]}, ("line 3", "twice")),
        ({"gate": {"deadline": 5}}, ("gate.deadline", "unknown key")),
        ({"gate": {"deadline_ms": 0}}, ("gate.deadline_ms", "greater than or equal to 1")),
    ],
)
def test_a_line_that_cannot_be_is_named(
    tmp_path: Path, changes: Page, words: tuple[str, ...]
) -> None:
    said = refused(tmp_path, page() | changes)
    for word in words:
        assert word in said


def test_one_plc_leads_and_others_may_watch(tmp_path: Path) -> None:
    outputs = [MODBUS, {"kind": "opcua", "listen": False}, {"kind": "gpio", "gate": 4}]
    config = loaded(tmp_path, page() | {"trigger": {"kind": "plc"}, "outputs": outputs})
    assert [o.options.listen for o in config.outputs] == [True, False, False]
    assert config.document.gate.deadline_ms == 500


def test_a_section_can_be_replaced_from_outside(tmp_path: Path) -> None:
    config = load(written(tmp_path, page()), {"publishers": []})
    assert config.publishers == ()


def test_the_hash_follows_the_content_and_nothing_else(tmp_path: Path) -> None:
    config = loaded(tmp_path, page())
    same = loaded(tmp_path, "# a comment\n" + yaml.safe_dump(page(), sort_keys=False))
    other = page()
    other["parts"] = {"views": 6}
    assert config.sha256 == same.sha256 != loaded(tmp_path, other).sha256


@pytest.mark.parametrize("file", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=str)
def test_the_station_files_that_come_with_it_are_right(file: Path) -> None:
    assert load(file).document.station.name


def test_the_schema_knows_every_kind() -> None:
    assert {"cameras.video", "runtimes.scripted", "publishers.file"} <= set(schema()["$defs"])


# --- anything at all

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.dates()
)
keys = st.one_of(
    st.sampled_from(["station", "camera", "kind", "path", "model", "runtime", "recipe", "store"]),
    st.text(max_size=5),
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=6)),
    max_leaves=25,
)


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_text_makes_anything_but_a_config_error(tmp_path: Path, content: str | bytes) -> None:
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    refused(tmp_path, content)


@given(st.text(alphabet="ab1:-?[]{}&*!|>'\"%@`#,._ \n\t<=~0xo+e", max_size=60))
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_yaml_makes_anything_but_a_config_error(tmp_path: Path, content: str) -> None:
    refused(tmp_path, content)


@given(st.dictionaries(keys, trees, max_size=8))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_tree_makes_anything_but_a_config_error(tmp_path: Path, data: Page) -> None:
    for section, value in data.items():
        if section in page():
            refused(tmp_path, page() | {section: value} | {"surplus": 1})
    refused(tmp_path, data)
