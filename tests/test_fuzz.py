"""Whatever bytes come in, only our errors come out, soon, and with little memory.

Every door gets a few examples in the suite. Those that strangers reach first are marked ``fuzz``:
``pytest -m fuzz`` knocks at each for 20 s, as CI does (``LINEGUARD_FUZZ_S=3600`` for a night).
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline import config, limits, schema
from pipeline.bundle import open_bundle
from pipeline.collect.arrival import read_arrival
from pipeline.errors import LineguardError
from pipeline.onnx_graph import check_graph
from pipeline.proof import REPORT
from pipeline.quality.golden import read_golden
from pipeline.quality.truth import read_truth
from pipeline.receipts import read_receipt
from pipeline.schema import canonical, example_event
from pipeline.selftest import questions_of
from pipeline.signing import Trust, signer
from pipeline.vision.picture import decode_picture, read_picture
from tests.tiny import e2e_model

SECONDS = float(os.environ.get("LINEGUARD_FUZZ_S", "20"))
MOST_S = 1.0
"""No input may take longer; measured in processor time, for a busy machine is no fault."""
MOST_MB = 200
EXAMPLES = 120

Door = Callable[[Path, bytes], object]


def config_page(folder: Path, data: bytes) -> object:
    return config.load(written(folder / "station.yaml", data))


def manifest(folder: Path, data: bytes) -> object:
    written(folder / "manifest.json", data)
    return open_bundle(folder)


def picture(folder: Path, data: bytes) -> object:
    return read_picture(written(folder / "picture.png", data), 1_000_000)


def picture_in_memory(folder: Path, data: bytes) -> object:
    return decode_picture(data, "a picture", 1_000_000)


def truth(folder: Path, data: bytes) -> object:
    return read_truth(written(folder / "line.truth.jsonl", data))


def golden(folder: Path, data: bytes) -> object:
    return read_golden(written(folder / "line.golden.jsonl", data))


def record(folder: Path, data: bytes) -> object:
    return schema.decode(data)


def onnx(folder: Path, data: bytes) -> object:
    return check_graph(written(folder / "model.onnx", data))  # type: ignore[func-returns-value]


def signature(folder: Path, data: bytes) -> object:
    return signer(b"a message", data, Trust(()), b"")


def receipt(folder: Path, data: bytes) -> object:
    """Read the only message that a station takes from its broker."""
    return read_receipt(data)


def arrival(folder: Path, data: bytes) -> object:
    """Read what a collector takes from its broker."""
    return read_arrival("acme/north/smt/line-2/aoi-1", data)


def bundle(folder: Path, data: bytes) -> object:
    """Open a bundle whose model, golden picture and report are these bytes, hashed as they should.

    Whoever may write a bundle may hash it too: what is in its files is read after that.
    """
    page = json.loads(MANIFEST)
    sha256 = hashlib.sha256(data).hexdigest()
    for entry in (page["artefacts"]["fp32"], page["golden"][0], page["parity"]):
        entry["sha256"] = sha256
        written(folder / entry["path"], data)
    written(folder / "manifest.json", json.dumps(page).encode())
    opened = open_bundle(folder)
    opened.check()
    graph = opened.checked_file(opened.artefact_for("onnx"))
    looks: tuple[Callable[[], object], ...] = (
        opened.report,
        lambda: questions_of(opened, "fp32"),
        lambda: check_graph(graph),  # type: ignore[func-returns-value]
    )
    for look in looks:
        try:
            look()
        except LineguardError as error:
            assert "\n" not in str(error)
    return opened


DOORS: dict[str, Door] = {
    door.__name__: door
    for door in (
        config_page, manifest, picture, picture_in_memory, truth, golden, record, onnx, signature,
        receipt, arrival, bundle,
    )
}  # fmt: skip


def written(file: Path, data: bytes) -> Path:
    file.write_bytes(data)
    return file


# --- seeds that are nearly right, and what spoils them

JSON_TREE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=20,
)
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000002000000020802000000fdd49a73"
    "0000001249444154789c6360606060606060000000ffff03000c000104a3d2b1950000000049454e44ae426082"
)
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffc0000b080010001001011100ffd9")
MANIFEST = json.dumps(
    {
        "name": "tiny", "version": "1", "decoder": "yolo-e2e", "labels": ["dent"],
        "input": {"height": 32, "width": 48}, "thresholds": {"dent": {"fail": 0.5, "unsure": 0.3}},
        "artefacts": {"fp32": {"path": "tiny.onnx", "sha256": "0" * 64, "runtimes": ["onnx"],
                               "precision": "fp32"}},
        "golden": [{"path": "1.png", "sha256": "0" * 64, "expect": {
            "fp32": [{"label": "dent", "score": 0.9, "xyxy": [1.0, 2.0, 3.0, 4.0]}]}}],
        "parity": {"path": REPORT, "sha256": "0" * 64}, "licence": "CC0-1.0",
    }
).encode()  # fmt: skip
PARITY = json.dumps(
    {
        "ok": True, "flips": 0, "reference": {"artefact": "fp32", "run": "onnx/cpu"},
        "artefacts": {"fp32": {"sha256": "0" * 64, "precision": "fp32", "bytes": 9,
                               "runs": {"onnx/cpu": {"ok": True}}}},
        "pictures": {"count": 1}, "contract_sha256": "0" * 64,
    }
).encode()  # fmt: skip
RECEIPT = b'{"run":"019aa9c0-5d2c-7b1a-8c11-2a7d5e90f3b6","from":1,"through":4211}'
GRAPH: bytes = e2e_model().SerializeToString()
STATION = Path(__file__).parent.parent / "configs" / "demo.yaml"
HEADS = (
    PNG, JPEG, b"BM" + bytes(60), b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 2, 256, 4, 1, 9),
    b"MM\0*" + bytes(30), b"RIFF\x20\0\0\0WEBPVP8L" + bytes(20), b"\x3a\x04\x0a\x02\x0a\x00",
    b"station: {name: a}\ncamera: {kind: synthetic}\n", b"a: &x [1]\nb: *x\n", b"[" * 4000,
    b'{"a": ' * 500, b'{"schema": 1, "id": "x"}', b'{"index": 1, "good": true}\n',
    b'{"algorithm": "ed25519", "key": "0000000000000000", "signature": ""}',
    json.dumps(json.loads(schema.encode(schema.EXAMPLE))).encode(),
)  # fmt: skip
SEEDS: dict[str, tuple[bytes, ...]] = {
    "config_page": (STATION.read_bytes(),),
    "manifest": (MANIFEST,),
    "receipt": (RECEIPT,),
    "arrival": (canonical(example_event()),),
    "bundle": (PARITY, PNG, JPEG, GRAPH),
    "onnx": (GRAPH,),
}
"""What each door takes, or nearly takes."""


@dataclass(frozen=True)
class Spoil:
    """One thing that is done to a seed."""

    at: float
    cut: int
    put: bytes


SPOILS = st.lists(
    st.builds(Spoil, st.floats(0, 0.999), st.integers(0, 4), st.binary(max_size=6)), max_size=6
)


@st.composite
def inputs(draw: st.DrawFn, name: str) -> bytes:
    """Draw bytes: any, a tree as JSON, or something nearly right that was spoilt."""
    kind = draw(st.sampled_from(["any", "tree", "spoilt", "own", "own"]))
    if kind == "any":
        return draw(st.binary(max_size=4000))
    if kind == "tree":
        return json.dumps(draw(JSON_TREE)).encode("utf-8", "surrogatepass")
    seeds = SEEDS.get(name, HEADS) if kind == "own" else HEADS
    data = bytearray(draw(st.sampled_from(seeds)))
    for spoil in draw(SPOILS):
        at = int(spoil.at * len(data))
        data[at : at + spoil.cut] = spoil.put
    return bytes(data) * draw(st.sampled_from([1, 1, 1, 2, 50]))


@pytest.mark.parametrize("name", DOORS)
def test_only_our_errors_come_out_of_every_door(name: str, tmp_path: Path) -> None:
    knocking(name, tmp_path)()


@pytest.mark.fuzz
@pytest.mark.parametrize("name", ["config_page", "manifest", "receipt", "picture", "bundle"])
def test_a_door_stands_while_strangers_knock(name: str, tmp_path: Path) -> None:
    knock, ends_s = knocking(name, tmp_path), time.monotonic() + SECONDS
    while time.monotonic() < ends_s:
        knock()


def knocking(name: str, folder: Path) -> Callable[[], None]:
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(inputs(name))
    def knock(data: bytes) -> None:
        tried(DOORS[name], folder, data)

    return knock


def tried(door: Door, folder: Path, data: bytes) -> None:
    """Knock once: only our errors, of one line, within a second of processor time."""
    began_s, before_mb = time.process_time(), _most_mb()
    try:
        door(folder, data)
    except LineguardError as error:
        assert "\n" not in str(error)
    assert time.process_time() - began_s < MOST_S
    assert _most_mb() - before_mb < MOST_MB


def _most_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- bombs that were found elsewhere, each at the door that it was made for

BOMBS: dict[str, tuple[str, bytes]] = {
    "YAML aliases that double": (
        "config_page",
        b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (i, i, i - 1, i - 1) for i in range(1, 30)),
    ),
    "JSON 100,000 deep": ("manifest", b"[" * 100_000 + b"]" * 100_000),
    "JSON 100,000 deep, spread over objects": ("record", b'{"a":' * 10_000),
    "JSON of 64 MB": ("manifest", b"[" + b"0," * (32 << 20) + b"0]"),
    "a line of 64 MB": ("truth", b" " * (64 << 20)),
    "brackets in a text are no depth": ("golden", b'{"part": "' + b"[" * 60_000 + b'"}'),
    "a number of 100,000 digits": ("truth", b'{"index": ' + b"1" * 60_000 + b"}"),
    "a JPEG of a million empty segments": ("picture", b"\xff\xd8" + b"\xff\xe1\0\2" * 1_000_000),
    "a PNG that claims 30,000 x 30,000": (
        "picture_in_memory",
        PNG[:16] + struct.pack(">II", 30_000, 30_000) + PNG[24:],
    ),
    "a TIFF of 65,535 tags": ("picture", b"II*\0\x08\0\0\0\xff\xff" + bytes(12 * 65_535)),
    "an ONNX file of a million fields": ("onnx", b"\x08\0" * 1_000_000),
    "a number of 1,000 bytes in an ONNX file": ("onnx", b"\xff" * 1000),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_known_bomb_is_refused_soon(bomb: str, tmp_path: Path) -> None:
    name, data = BOMBS[bomb]
    began_s, before_mb = time.process_time(), _most_mb()
    with pytest.raises(LineguardError) as said:
        DOORS[name](tmp_path, data)
    assert "\n" not in str(said.value)
    assert time.process_time() - began_s < MOST_S
    assert _most_mb() - before_mb < MOST_MB


@given(JSON_TREE)
def test_the_depth_is_that_of_the_tree(tree: Any) -> None:
    def depth(node: Any) -> int:
        inner = list(node.values()) if isinstance(node, dict) else node
        return 1 + max(map(depth, inner), default=0) if isinstance(node, dict | list) else 0

    data = json.dumps(tree).encode("utf-8", "surrogatepass")
    if depth(tree) > 2:
        with pytest.raises(ValueError, match="levels deep"):
            limits.json_of(data, depth=2)


def test_what_is_no_file_is_never_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for read in (read_picture, read_truth, read_golden, config.load):
        with pytest.raises(LineguardError, match="not a regular file"):
            read(pipe)
