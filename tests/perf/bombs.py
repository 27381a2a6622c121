"""How soon the dashboard refuses what is small to send and huge to open, and answers meanwhile.

    python -m tests.perf.bombs --rounds 20 --json bombs.json

A dashboard, a process of its own, serves a store whose pictures are bombs; bodies that are bombs
are sent to it. Meanwhile another thread asks for ``/healthz`` again and again. Exit 1 if a bomb is
not refused, the slowest refusal takes longer than --refused-ms, or the slowest answer of
``/healthz`` than --health-ms.
"""

from __future__ import annotations

import argparse
import gzip
import json
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import yaml

from pipeline.config import StationConfig, load
from pipeline.shipped import shipped
from pipeline.web.access import MAX_BODY_BYTES
from tests.dashboards import fill, pictured, token

PREVIEW = "/api/v1/recipe/preview"
JSON = {"content-type": "application/json"}
PAUSE_S = 0.005


def png(side: int) -> bytes:
    """Return a PNG of some hundred bytes that claims to be ``side`` pixels wide and high."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    rows = _chunk(b"IDAT", zlib.compress(bytes(1 << 20), 9))
    return b"\x89PNG\r\n\x1a\n" + head + rows + _chunk(b"IEND", b"")


def jpeg(side: int) -> bytes:
    """Return a JPEG that is nothing but a header of such a size."""
    size = struct.pack(">BHHB", 8, side, side, 3) + bytes([1, 34, 0, 2, 17, 1, 3, 17, 1])
    segment = struct.pack(">BBH", 0xFF, 0xC0, len(size) + 2) + size
    return b"\xff\xd8" + segment + b"\xff\xda\x00\x02\xff\xd9"


def tiff(side: int) -> bytes:
    """Return a TIFF whose directory names such a size and no data."""
    tags = [struct.pack("<HHII", tag, 4, 1, side) for tag in (256, 257)]
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(tags) + bytes(4)


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


PICTURES: Mapping[str, bytes] = {
    "PNG of 60,000 x 60,000 pixels": png(60_000),
    "JPEG of 65,500 x 65,500 pixels": jpeg(65_500),
    "TIFF of 4 billion x 4 billion pixels": tiff(2**32 - 1),
    "PNG whose chunk claims 2 GB": png(4000)[:33] + b"\x7f\xff\xff\xff" + png(4000)[37:],
    "gzip that is no picture": gzip.compress(bytes(32 << 20)),
}


@dataclass(frozen=True)
class Body:
    """A body that is a bomb.

    Attributes:
        pieces: what is sent; several of them say nothing of their length before.
    """

    pieces: tuple[bytes, ...]
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)

    def content(self) -> bytes | Iterator[bytes]:
        return self.pieces[0] if len(self.pieces) == 1 else iter(self.pieces)


_ALIASES = zip("abcdefgh", "bcdefghi", strict=True)
BODIES: Mapping[str, Body] = {
    "64 KiB of brackets": Body((b"[" * MAX_BODY_BYTES,)),
    "5,000 objects, one in the other": Body((b'{"defects":' * 5000,)),
    "a number of 64,000 digits": Body((b'{"defects":{},"parts":' + b"9" * 64_000 + b"}",)),
    "4,000 rules": Body((json.dumps({"defects": {f"l{n}": {} for n in range(4000)}}).encode(),)),
    "gzip that holds 60 MB": Body(
        (gzip.compress(b'{"defects":{}}' + b" " * (60 << 20)),),
        {**JSON, "content-encoding": "gzip"},
    ),
    "YAML of a billion texts": Body(
        ("".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in _ALIASES).encode(),),
        {"content-type": "application/yaml"},
    ),
    "10 MB, announced": Body((b" " * 10_000_000,)),
    # Not more: the client's own sending would be measured.
    "256 KiB, not announced": Body((b" " * 16_384,) * 16),
}


@dataclass
class Asked:
    """A thread that asks for ``/healthz`` again and again, and how long each answer took, ms."""

    url: str
    took_ms: list[float] = field(default_factory=list)
    failed: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Asked:
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=10) as client:
            client.get("/healthz")  # connects, as whoever asks all the time has done
            while not self._ended.wait(PAUSE_S):
                began = time.perf_counter()
                self.failed += client.get("/healthz").status_code != 200
                self.took_ms.append((time.perf_counter() - began) * 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--refused-ms", type=float, default=50)
    parser.add_argument("--health-ms", type=float, default=100)
    parser.add_argument("--json", type=Path, metavar="FILE")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lineguard-bombs-") as folder:
        file = station_file(Path(folder))
        config = load(file)
        lay(config)
        with served(file) as url:
            figures = measure(url, wanted.rounds)
    text = json.dumps(figures, indent=2)
    if wanted.json:
        wanted.json.write_text(text + "\n")
    print(text)  # noqa: T201
    slowest = max(bomb["most_ms"] for bomb in figures["bombs"].values())
    sound = figures["refused"] and slowest <= wanted.refused_ms and not figures["healthz_failed"]
    sys.exit(0 if sound and figures["healthz_most_ms"] <= wanted.health_ms else 1)


def station_file(folder: Path) -> Path:
    """Write the demo's station file with its store in a folder."""
    document = yaml.safe_load(shipped("configs/demo.yaml").read_text())
    document["model"]["bundle"] = str(shipped("models/boards-n").resolve())
    document["store"] = {"path": str(folder / "store"), "pictures": "all"}
    file = folder / "station.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def lay(config: StationConfig) -> None:
    """Fill a store with one record per picture that is a bomb."""
    drafts = enumerate(PICTURES.values(), 1)
    fill(config, [pictured(config, n, "UNSURE", ("open",), data) for n, data in drafts])


@contextmanager
def served(file: Path) -> Iterator[str]:
    """Serve a dashboard as a process of its own; yield its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "web", str(file), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[1]
    finally:
        process.terminate()
        process.wait(20)


def measure(url: str, rounds: int) -> dict[str, Any]:
    """Send every bomb so many times; return how long each refusal took, and each ``/healthz``."""
    took: dict[str, list[float]] = {}
    refused = True
    with httpx.Client(base_url=url, timeout=30) as client:
        headers = token(client)
        ids = [part["id"] for part in wait_for_parts(client)]
        with Asked(url) as asked:
            for _ in range(rounds):
                for name, send in bombs(client, ids, headers):
                    began = time.perf_counter()
                    refused &= was_refused(send)
                    took.setdefault(name, []).append((time.perf_counter() - began) * 1e3)
    return {
        "refused": refused,
        "bombs": {
            name: {"median_ms": round(median(ms), 2), "most_ms": round(max(ms), 2)}
            for name, ms in took.items()
        },
        "healthz_asked": len(asked.took_ms),
        "healthz_failed": asked.failed,
        "healthz_median_ms": round(median(asked.took_ms), 2),
        "healthz_most_ms": round(max(asked.took_ms), 2),
        "rounds": rounds,
    }


def wait_for_parts(client: httpx.Client) -> list[dict[str, Any]]:
    """Return the parts, oldest first, once the dashboard has folded all of them."""
    while len(found := client.get("/api/v1/parts").json()["parts"]) < len(PICTURES):
        time.sleep(0.05)
    return list(reversed(found))


def bombs(
    client: httpx.Client, ids: Sequence[str], headers: Mapping[str, str]
) -> Iterator[tuple[str, Callable[[], httpx.Response]]]:
    """Yield name of each bomb and what sends it; ``ids`` are of the records of ``PICTURES``."""
    for (name, _), id in zip(PICTURES.items(), ids, strict=True):
        for view in ("part", "thumb"):
            params = {"view": view}
            yield (
                f"{name}, {view}",
                partial(client.get, f"/api/v1/parts/{id}/picture", params=params),
            )
    for name, body in BODIES.items():
        yield (
            name,
            partial(
                lambda body: client.post(
                    PREVIEW, content=body.content(), headers={**headers, **body.headers}
                ),
                body,
            ),
        )


def was_refused(send: Callable[[], httpx.Response]) -> bool:
    """Send a bomb; tell whether it was refused, or the connection cut, which is as good."""
    try:
        answer = send()
    except httpx.TimeoutException:
        return False
    except httpx.TransportError:
        return True
    return answer.status_code in (400, 413) or "cannot be read" in answer.json()["error"]


if __name__ == "__main__":
    main()
