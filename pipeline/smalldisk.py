"""A small disk in memory, to be filled on purpose without harm to the machine's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.disk import free_bytes
from pipeline.errors import ConfigError


@contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[Path]:
    """Mount a file system in memory as long as the block lasts.

    Raises:
        ConfigError: this is not root, or it may not mount.
    """
    if os.geteuid() != 0:
        raise ConfigError("a small disk needs root: start it with sudo, or with `unshare -rm`")
    folder.mkdir(parents=True, exist_ok=True)
    mount(["-t", "tmpfs", "-o", f"size={size_mb}m,mode=0750", "tmpfs", str(folder)])
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def mount(words: list[str]) -> None:
    """Mount something.

    Raises:
        ConfigError: it cannot be mounted.
    """
    try:
        done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    except OSError as error:
        raise ConfigError(f"mount: {error.strerror}; a small disk needs util-linux") from error
    if done.returncode:
        raise ConfigError(f"mount {' '.join(words)}: {done.stderr.strip()}")


def fill(file: Path) -> None:
    """Write to a file until nothing fits on its disk any more."""
    with file.open("ab", buffering=0) as stream:
        with suppress(OSError):  # at once, as far as the file system can
            os.posix_fallocate(stream.fileno(), 0, free_bytes(file.parent))
            stream.seek(0, os.SEEK_END)
        for size in (1 << 20, 1 << 12):
            try:
                while stream.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
