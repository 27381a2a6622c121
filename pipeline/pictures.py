"""Picture files of a store: a ring within a share of its disk, written whole or not at all.

Where the disk is full, pictures make room for records: those of good parts first, then the oldest.
"""

import hashlib
import os
from collections import deque
from pathlib import Path

from pipeline.database import store_errors
from pipeline.errors import DiskFull
from pipeline.records import StoredPicture

PICTURES = "pictures"


class Pictures:
    """Picture files of a store: a ring within a share of the disk.

    The oldest makes room, those whose name ends in ``GOOD`` before all others: what was rejected
    is looked at again, what passed hardly ever.
    """

    GOOD = "-pass"

    def __init__(self, folder: Path, keep_bytes: int) -> None:
        self._folder = folder
        self._keep_bytes = keep_bytes
        self._good: deque[tuple[Path, int]] = deque()
        self._others: deque[tuple[Path, int]] = deque()
        self._bytes = 0
        with store_errors(folder):
            for file in sorted((folder / PICTURES).rglob("*.jpg")):
                self._add(file, file.stat().st_size)

    def keep(self, name: str, jpeg: bytes) -> StoredPicture:
        """Write a picture and wait until it is on the disk.

        Args:
            name: relative path without suffix; names sort by time.

        Raises:
            DiskFull: there is no room, also without the older pictures.
            StoreError: it could not be written.
        """
        file = self._folder / PICTURES / f"{name}.jpg"
        while not self._written(file, jpeg):
            self._drop_oldest()
        self._add(file, len(jpeg))
        with store_errors(file):
            while self._bytes > self._keep_bytes and len(self._good) + len(self._others) > 1:
                self._drop_oldest()
        return StoredPicture(str(file.relative_to(self._folder)), hashlib.sha256(jpeg).hexdigest())

    def _written(self, file: Path, jpeg: bytes) -> bool:
        """Write a file whole or not at all; return False if dropping another may make room."""
        try:
            with store_errors(file):
                _write_new(file, jpeg)
        except DiskFull:
            if not (self._good or self._others):
                raise
            return False
        return True

    def _add(self, file: Path, size: int) -> None:
        ring = self._good if file.stem.endswith(self.GOOD) else self._others
        ring.append((file, size))
        self._bytes += size

    def _drop_oldest(self) -> None:
        oldest, size = (self._good or self._others).popleft()
        with store_errors(oldest):
            oldest.unlink(missing_ok=True)
        self._bytes -= size


def _write_new(file: Path, data: bytes) -> None:
    """Write a file that is not there yet and wait for the disk; leave none that is cut off."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("xb") as stream:
        try:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        except OSError:
            file.unlink(missing_ok=True)
            raise
