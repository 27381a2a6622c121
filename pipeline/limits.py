"""Bounds on what comes from outside, kept before it is decoded: bytes, depth, repeated keys."""

import errno
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

MAX_JSON_DEPTH = 32


def open_regular(file: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        OSError: it cannot be opened, or is a pipe, a device or a folder: those may never end.
    """
    # Not blocking: opening a pipe that nobody writes to would wait for ever.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
        raise OSError(errno.EINVAL, "not a regular file", str(file))
    return os.fdopen(descriptor, "rb")


def read_bounded(file: Path, most: int) -> bytes:
    """Return the content of a regular file of at most ``most`` bytes.

    Raises:
        OSError: as ``open_regular``.
        ValueError: it is larger.
    """
    with open_regular(file) as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise ValueError(f"larger than {_size(most)}; refused")
    return data


def bounded_lines(file: Path, most: int, most_lines: int) -> Iterator[tuple[int, bytes]]:
    """Yield number, from 1, and content of the lines of a regular file that hold something.

    Raises:
        OSError: as ``open_regular``.
        ValueError: a line is longer than ``most`` bytes, or there are more than ``most_lines``.
    """
    with open_regular(file) as stream:
        number = 0
        while line := stream.readline(most + 1):
            number += 1
            if len(line) > most:
                raise ValueError(f"line {number}: longer than {_size(most)}; refused")
            if number > most_lines:
                raise ValueError(f"more than {most_lines} lines; refused")
            if line.strip():
                yield number, line


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
