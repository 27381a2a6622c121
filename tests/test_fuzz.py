"""Whatever bytes come in, only our errors come out, soon, and with little memory.

20 s for each door in CI would be too much beside the rest: the examples are few here, and
``LINEGUARD_FUZZ_S=20 pytest tests/test_fuzz.py`` gives each door its time (3600 for a night).
"""

from __future__ import annotations

import json
import os
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline import config, limits, schema
from pipeline.bundle import open_bundle
from pipeline.errors import LineguardError
from pipeline.onnx_graph import check_graph
from pipeline.quality.golden import read_golden
from pipeline.quality.truth import read_truth
from pipeline.signing import Trust, signer
from pipeline.vision.picture import decode_picture, read_picture

SECONDS = float(os.environ.get("LINEGUARD_FUZZ_S", "0"))
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


DOORS: dict[str, Door] = {
    door.__name__: door
    for door in (
        config_page, manifest, picture, picture_in_memory, truth, golden, record, onnx, signature,
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
HEADS = (
    PNG, JPEG, b"BM" + bytes(60), b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 2, 256, 4, 1, 9),
    b"MM\0*" + bytes(30), b"RIFF\x20\0\0\0WEBPVP8L" + bytes(20), b"\x3a\x04\x0a\x02\x0a\x00",
    b"station: {name: a}\ncamera: {kind: synthetic}\n", b"a: &x [1]\nb: *x\n", b"[" * 4000,
    b'{"a": ' * 500, b'{"schema": 1, "id": "x"}', b'{"index": 1, "good": true}\n',
    b'{"algorithm": "ed25519", "key": "0000000000000000", "signature": ""}',
    json.dumps(json.loads(schema.encode(schema.EXAMPLE))).encode(),
)  # fmt: skip


@st.composite
def inputs(draw: st.DrawFn) -> bytes:
    """Draw bytes: any, a tree as JSON, or something nearly right that was spoilt."""
    kind = draw(st.sampled_from(["any", "tree", "spoilt", "spoilt"]))
    if kind == "any":
        return draw(st.binary(max_size=4000))
    if kind == "tree":
        return json.dumps(draw(JSON_TREE)).encode("utf-8", "surrogatepass")
    data = bytearray(draw(st.sampled_from(HEADS)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data) - 1))
        data[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=6))
        data = data or bytearray(b"\0")
    return bytes(data) * draw(st.sampled_from([1, 1, 1, 2, 50]))


@pytest.mark.parametrize("name", DOORS)
def test_only_our_errors_come_out_of_every_door(name: str, tmp_path: Path) -> None:
    door = DOORS[name]

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(inputs())
    def knock(data: bytes) -> None:
        tried(door, tmp_path, data)

    knock()
    ends_s = time.monotonic() + SECONDS
    while time.monotonic() < ends_s:
        knock()


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
