"""Where an update comes from: a folder (a stick, a share) or a web server, with resume."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import quote, urlsplit

from pipeline.errors import ConfigError, UpdateAway, UpdateError
from pipeline.limits import open_regular

TIMEOUT_S = 30.0
BLOCK_BYTES = 1 << 20


class Source(Protocol):
    """Gives the bytes of an update's files."""

    def open(self, path: str, start: int) -> BinaryIO:
        """Return a stream of a file from byte ``start`` on.

        Raises:
            UpdateAway: it cannot be had from there.
        """


class Folder:
    """A folder on this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, path: str, start: int) -> BinaryIO:
        try:
            stream = open_regular(self._path / path)
            stream.seek(start)
        except OSError as error:
            raise UpdateAway(f"{self._path / path}: {error.strerror}") from error
        return stream


class Web:
    """A web server; https, or http on this machine or where the plant says so.

    Nothing is believed because of where it comes from: the page is signed and names every hash.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def open(self, path: str, start: int) -> BinaryIO:
        url = f"{self._url}/{quote(path)}"
        request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
        try:
            answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            raise UpdateAway(f"{url}: {_one_line(error)}") from error
        if start and answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            _skip(answer, start)  # a server without ranges sends it all again
        stream: BinaryIO = answer
        return stream


def source_of(place: str) -> Source:
    """Return the source that a place names: a URL or a folder."""
    parts = urlsplit(place)
    if parts.scheme in ("http", "https") and parts.hostname:
        return Web(place)
    if "://" in place:
        raise ConfigError(f"{place}: an update comes from a folder, http:// or https://")
    return Folder(Path(place))


def read_page(source: Source, path: str, most: int) -> bytes:
    """Return a small file as a whole.

    Raises:
        UpdateAway: it cannot be had.
        UpdateError: it is larger than ``most`` bytes.
    """
    with source.open(path, 0) as stream:
        data = _read(stream, most + 1, path)
        while len(data) <= most and (more := _read(stream, most + 1 - len(data), path)):
            data += more
    if len(data) > most:
        raise UpdateError(f"{path}: larger than {most} bytes; refused")
    return data


def fetch(source: Source, path: str, size: int, to: Path, on_block: Callable[[], None]) -> None:
    """Bring one file to ``to``; what is there already is not fetched again.

    Raises:
        UpdateAway: it cannot be had, or not all of it.
        UpdateError: it is longer than ``size``.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    have = to.stat().st_size if to.exists() else 0
    if have > size:
        to.unlink()
        have = 0
    if have == size and to.exists():
        return
    with source.open(path, have) as stream, to.open("ab") as out:
        while have < size and (block := _read(stream, min(BLOCK_BYTES, size - have), path)):
            out.write(block)
            have += len(block)
            on_block()
        if have == size and _read(stream, 1, path):
            raise UpdateError(f"{path}: longer than the {size} bytes that its page names")
        out.flush()
        os.fsync(out.fileno())
    if have != size:
        raise UpdateAway(f"{path}: ended after {have} of {size} bytes; the next try goes on there")


def _read(stream: BinaryIO, most: int, path: str) -> bytes:
    try:
        return stream.read(most)
    except (http.client.HTTPException, OSError) as error:
        raise UpdateAway(f"{path}: {_one_line(error)}; the next try goes on there") from error


def _skip(stream: BinaryIO, count: int) -> None:
    while count > 0 and (block := stream.read(min(BLOCK_BYTES, count))):
        count -= len(block)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
