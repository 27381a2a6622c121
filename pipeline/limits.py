"""Bounds on what comes from outside, kept before anything is decoded: bytes, depth, repeated keys."""

import errno
import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

MAX_JSON_DEPTH = 32


def read_bounded(file: Path, most: int) -> bytes:
    """Return the content of a regular file of at most ``most`` bytes.

    Raises:
        OSError: it cannot be read, or is a pipe, a device or a folder: those may never end.
        ValueError: it is larger.
    """
    # Not blocking: opening a pipe that nobody writes to would wait for ever.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "not a regular file", str(file))
        data = stream.read(most + 1)
    if len(data) > most:
        raise ValueError(f"larger than {_size(most)}; refused")
    return data


def read_json(file: Path, most: int, depth: int = MAX_JSON_DEPTH) -> Any:
    """Return what a JSON file of at most ``most`` bytes says.

    Raises:
        OSError: as ``read_bounded``.
        ValueError: it is larger, or as ``json_of``.
    """
    return json_of(read_bounded(file, most), depth)


def json_of(data: bytes, depth: int = MAX_JSON_DEPTH) -> Any:
    """Return what a JSON text says; whoever calls has bounded its length.

    Raises:
        ValueError: it is no JSON in UTF-8, nests deeper than ``depth``, repeats a key, or holds
            NaN or an infinity, which JSON does not know.
    """
    if (found := _depth(data)) > depth:
        raise ValueError(f"nested {found} levels deep; at most {depth} are read")
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=each_once, parse_constant=no_constant
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs, for ``json.loads``; a repeated key is a ValueError."""
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"key {twice!r:.60} appears twice")
    return made


def no_constant(name: str) -> Any:
    """Refuse NaN and the infinities, for ``json.loads``."""
    raise ValueError(f"{name} is not a number in JSON")


def _depth(data: bytes) -> int:
    """Return how deep brackets nest outside of texts, in time linear in the length."""
    plain = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(plain.split(b'"')[::2])
    depth = deepest = 0
    for bracket in outside.translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _size(most: int) -> str:
    return f"{most >> 20} MiB" if most >= 1 << 20 else f"{most >> 10} KiB"
