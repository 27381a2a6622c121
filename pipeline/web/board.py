"""What the dashboard stands on: where things lie and who answers for them, put together once."""

from __future__ import annotations

import fcntl
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import IO, Any

from pipeline.assembly import live_path
from pipeline.bundle import Bundle, open_bundle
from pipeline.config import StationConfig
from pipeline.errors import ConfigError, StoreError
from pipeline.limits import read_bounded
from pipeline.live import View
from pipeline.quality.truthfile import FILE as TRUTH_FILE
from pipeline.quality.truthfile import TruthFile
from pipeline.types import Image
from pipeline.vision.picture import decode_picture, encode_jpeg
from pipeline.web import paint
from pipeline.web.access import Refused
from pipeline.web.desk import FOLDER, Desk
from pipeline.web.hub import Hub
from pipeline.web.index import Index
from pipeline.web.ledger import Kept, LedgerReader
from pipeline.web.panel import Panel

SOURCE = "https://github.com/lineguard/lineguard"
THUMBS_KEPT = 500
MAX_PICTURE_BYTES = 64 << 20
OPENED_AT_ONCE = 2
"""The largest picture that is opened takes 192 MB for a moment; forty at once would be too many."""

QUALITY = 88


@dataclass(slots=True)
class Thumbs:
    """The newest small pictures, so that a list that many look at is painted once."""

    _kept: OrderedDict[str, bytes] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def get(self, id: str) -> bytes | None:
        with self._lock:
            return self._kept.get(id)

    def put(self, id: str, jpeg: bytes) -> None:
        with self._lock:
            self._kept[id] = jpeg
            while len(self._kept) > THUMBS_KEPT:
                self._kept.popitem(last=False)


class Board:
    """One station's dashboard.

    Args:
        config: the station file.
        demo: whether the demo's panel of faults and lines is shown.

    Raises:
        StoreError: the dashboard cannot keep its own files.
    """

    def __init__(self, config: StationConfig, *, demo: bool = False, source: str = SOURCE) -> None:
        self.config = config
        self.demo = demo
        self.source = source
        self.live = live_path(config)
        try:
            config.store_path.mkdir(parents=True, exist_ok=True)
            owner = config.store_path.stat().st_uid
        except OSError as error:
            raise StoreError(f"{config.store_path}: {error.strerror}; check store.path") from error
        self._lock = _locked(config.store_path / FOLDER)
        self.ledger = LedgerReader(config.store_path)
        self.index = Index(config.store_path / FOLDER)
        self.desk = Desk.of(config.store_path)
        self.view = View(self.live, owner)
        self.panel = Panel(self.live)
        truth = TruthFile(self.live / TRUTH_FILE) if demo else None
        self.hub = Hub(self.ledger, self.index, self.view, truth)
        self._thumbs = Thumbs()
        self._opening = BoundedSemaphore(OPENED_AT_ONCE)

    @cached_property
    def bundle(self) -> Bundle:
        """The model bundle of the station file."""
        return open_bundle(self.config.bundle_path)

    def kept(self, id: str) -> Kept:
        """Return a record, or refuse."""
        kept = self.ledger.by_id(id)
        if kept is None:
            raise Refused(404, "there is no record of that id")
        return kept

    def picture(self, id: str, view: str) -> bytes:
        """Return a record's picture as JPEG: ``full`` as stored, ``part``, or ``thumb``.

        Raises:
            Refused: there is none, or it is not the one that the record names.
        """
        small = self._thumbs.get(id) if view == "thumb" else None
        if small is not None:
            return small
        record = self.kept(id).values()
        stored = self.stored(record)
        if view == "full":
            return stored
        with self._opening:
            image = decoded(stored, record)
            cut = paint.cut_out if view == "part" else paint.thumbnail
            jpeg = encode_jpeg(cut(image, record), QUALITY)
        if view == "thumb":
            self._thumbs.put(id, jpeg)
        return jpeg

    def stored(self, record: Mapping[str, Any]) -> bytes:
        """Return the bytes of a record's picture.

        Raises:
            Refused: there is none, or it is not the one that the record names.
        """
        file = self.ledger.picture_file(record["image"])
        if file is None:
            raise Refused(404, "this part's picture was not kept, or was deleted to make room")
        try:
            data = read_bounded(file, MAX_PICTURE_BYTES)
        except (OSError, ValueError) as error:
            raise Refused(404, f"the picture cannot be read: {error}") from error
        if hashlib.sha256(data).hexdigest() != record["image_sha256"]:
            raise Refused(404, "the picture on the disk is not the one that the record names")
        return data

    def close(self) -> None:
        """Let go of all files; may be called twice."""
        self.ledger.close()
        self.index.close()
        self.desk.close()
        self._lock.close()


def _locked(folder: Path) -> IO[bytes]:
    """Make sure that nobody else folds records into this index."""
    try:
        folder.mkdir(mode=0o750, exist_ok=True)
        stream = (folder / "dashboard.lock").open("ab")
    except OSError as error:
        raise StoreError(
            f"{folder}: {error.strerror}; the dashboard keeps its index and reviews there"
        ) from error
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        stream.close()
        raise StoreError(
            f"{folder.parent}: another dashboard serves this store; open that one, or stop it"
        ) from error
    return stream


def decoded(stored: bytes, record: Mapping[str, Any]) -> Image:
    """Return a record's picture, uint8 (H, W, 3) BGR.

    Raises:
        Refused: it is no picture, or larger than is decoded.
    """
    try:
        return decode_picture(stored, str(record["image"]))
    except ConfigError as error:
        raise Refused(404, f"the picture cannot be read: {error}") from error
