"""How many frames a video file promises: read from its container, nothing is decoded.

OpenCV's frame count is exact only where the container stores one; elsewhere it is duration times
frame rate, which is wrong for files of variable frame rate and for elementary streams. And it
counts frames that an edit list hides: a clip trimmed without re-encoding shows fewer.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import ConfigError

MAX_INDEX_BYTES = 256 << 20
ISO_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}


@dataclass(frozen=True, slots=True)
class Promise:
    """What a container says of its video.

    Attributes:
        frames: how many it shows; None if it does not say so exactly.
        timed: True if its duration is stored, so that an early end can be seen by the time.
    """

    frames: int | None = None
    timed: bool = False


def promise_of(file: Path) -> Promise:
    """Read what a video file promises.

    Raises:
        ConfigError: the file cannot be read, or is of no container that is known here.
    """
    try:
        with file.open("rb") as stream:
            return _promise(stream)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; check camera.path") from error


def _promise(stream: BinaryIO) -> Promise:
    start = stream.read(64)
    if start[4:8] in ISO_BOXES:
        with suppress(struct.error, ValueError, IndexError, ZeroDivisionError):
            return Promise(_iso_frames(stream))
        return Promise()
    if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        return Promise(int.from_bytes(start[48:52], "little") or None)
    if start[:4] == b"\x1a\x45\xdf\xa3":  # Matroska, WebM
        return Promise(timed=True)
    # MPEG: transport stream (also with time codes), programme stream, elementary streams. Their
    # duration is guessed from the bit rate.
    if start[:1] == b"\x47" or start[4:5] == b"\x47" or start[:3] == b"\0\0\1":
        return Promise()
    # Whatever else FFmpeg would open includes text: playlists that lead to other files and hosts.
    raise ConfigError(
        f"{stream.name}: not a video that can be read; use mp4, mov, mkv, webm, avi, ts or mpg"
    )


def _iso_frames(stream: BinaryIO) -> int | None:
    """Return the sample count of the first video track unless an edit hides some of them."""
    index = b""
    for kind, size in _top_boxes(stream):
        if kind == b"moof":  # fragments: the index does not count them
            return None
        if kind == b"moov" and size <= MAX_INDEX_BYTES:
            index = stream.read(size)
    movie = _content(index, b"mvhd")
    for kind, track in _boxes(index):
        if kind == b"trak" and _content(track, b"mdia", b"hdlr")[8:12] == b"vide":
            return None if _is_cut(movie, track) else _samples(track) or None
    return None


def _samples(track: bytes) -> int:
    sizes = _content(track, b"mdia", b"minf", b"stbl", b"stsz")
    return int(struct.unpack(">8xI", sizes[:12])[0])


def _is_cut(movie: bytes, track: bytes) -> bool:
    """Tell whether the edit list starts after the first frame or ends before the last."""
    edits = _content(track, b"edts", b"elst")
    if not edits:
        return False
    wide = edits[0] == 1
    row = ">QqI" if wide else ">IiI"
    rows = list(struct.iter_unpack(row, edits[8:]))
    shown = [(length, begin) for length, begin, _rate in rows if begin >= 0]  # -1: an empty edit
    if len(shown) != 1:
        return True
    (length, begin), unit = shown[0], _time_scale(movie)[0]
    media_unit, media_length = _time_scale(_content(track, b"mdia", b"mdhd"))
    table = _content(track, b"mdia", b"minf", b"stbl")
    offsets = _content(table, b"ctts")
    first = struct.unpack(">8x4xI", offsets[:16])[0] if len(offsets) >= 16 else 0
    frame = struct.unpack(">8x4xI", _content(table, b"stts")[:16])[0]
    end = begin + length * media_unit / unit
    return bool(begin > first or end < first + media_length - frame)


def _time_scale(header: bytes) -> tuple[int, int]:
    """Return units per second and duration in units, of an mvhd or mdhd box."""
    if header[0] == 1:
        unit, length = struct.unpack(">20xIQ", header[:32])
    else:
        unit, length = struct.unpack(">12xII", header[:20])
    return unit, length


def _content(data: bytes, *path: bytes) -> bytes:
    for step in path:
        data = next((content for kind, content in _boxes(data) if kind == step), b"")
    return data


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8:
            return
        yield kind, data[at + 8 : at + size]
        at += size


def _top_boxes(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield kind and size of each box's content; the stream stands at its first byte."""
    at = 0
    while len(head := _at(stream, at, 16)) >= 8:
        size, kind = struct.unpack_from(">I4s", head)
        skip = 8
        if size == 1:
            size, skip = struct.unpack_from(">8xQ", head)[0], 16
        if size < skip:  # 0: up to the end of the file
            return
        stream.seek(at + skip)
        yield kind, size - skip
        at += size


def _at(stream: BinaryIO, at: int, count: int) -> bytes:
    stream.seek(at)
    return stream.read(count)
