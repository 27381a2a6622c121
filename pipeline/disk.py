"""Room on the disk of a store: a reserve that only records may use, and a word when it is short."""

import errno
import os
from pathlib import Path

RESERVE = "reserve"
FULL = (errno.ENOSPC, errno.EDQUOT)
LOW_SHARE = 4
"""The disk counts as short below a quarter of the reserve, which is several seconds of records."""


class Room:
    """Watches one disk.

    Args:
        folder: of the store.
        reserve_bytes: size of the reserve; 0 holds none, and then only a failed write is noticed.
    """

    def __init__(self, folder: Path, reserve_bytes: int = 0) -> None:
        self._folder = folder
        self._file = folder / RESERVE
        self._bytes = reserve_bytes
        self._low = reserve_bytes // LOW_SHARE
        self._enough = self._low

    def shortage(self) -> str:
        """Say in one line what is short, or "" if nothing is; take the reserve again if it fits."""
        free = free_bytes(self._folder)
        is_held = self._is_held() or (free >= self._bytes + self._low and self._take())
        if is_held and free >= self._enough:
            self._enough = self._low
            return ""
        held = "" if is_held else f", and no room for the reserve of {self._bytes >> 20} MB"
        return (
            f"{self._folder}: the disk is full or nearly so ({free / 1e6:.1f} MB free{held}); "
            "delete what is not needed there, or lower store.keep_pictures_mb"
        )

    def release(self) -> None:
        """Give the reserve to whoever writes next: a record did not fit."""
        self._file.unlink(missing_ok=True)

    def failed(self) -> None:
        """Note that a write did not fit: short until there is clearly more room than now."""
        self._enough = free_bytes(self._folder) + max(self._low, 1 << 16)

    def _is_held(self) -> bool:
        return self._bytes == 0 or self._file.exists()

    def _take(self) -> bool:
        """Allocate the reserve; a file of zeros would be holes on some file systems."""
        try:
            file = os.open(self._file, os.O_CREAT | os.O_WRONLY, 0o600)
            try:
                os.posix_fallocate(file, 0, self._bytes)
            finally:
                os.close(file)
        except OSError:
            self._file.unlink(missing_ok=True)
            return False
        return True


def free_bytes(folder: Path) -> int:
    """Return how much an ordinary user may still write there."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def is_full(error: OSError) -> bool:
    """Tell a full disk, or a used-up quota, from other errors."""
    return error.errno in FULL
