"""Two slots and what an update has come to, so kept that a power cut leaves one or the other.

folder/
  releases/ID/         counts once ``ID.complete`` lies beside it, written last
  current, previous    links; replaced by renaming another link over them
  update.state         JSON; replaced by renaming
  incoming/ID/         what is being fetched
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import UpdateAway, UpdateError
from pipeline.limits import read_json

STATE = "update.state"
MAX_STATE_BYTES = 64 << 10
RELEASES, INCOMING, COMPLETE = "releases", "incoming", ".complete"
PHASES = ("idle", "swapping", "probation", "going back")


@dataclass(frozen=True, slots=True)
class State:
    """What an update has come to.

    Attributes:
        phase: ``idle``; ``swapping``: the links are being set to ``to``; ``probation``: it runs and
            is watched; ``going back``: the links are being set to ``back``.
        sequence: the highest that was ever put to work here, also if it did not stay.
        to, back: ids of the releases after and before the swap.
        trials: how often probation was begun; a station that a release makes crash never ends one.
        refused: ids of releases that did not prove themselves, newest last.
    """

    phase: str = "idle"
    sequence: int = 0
    to: str = ""
    back: str = ""
    trials: int = 0
    refused: tuple[str, ...] = ()


class Slots:
    """The slots in one folder.

    Args:
        durable: called after each thing that has reached the disk; tests cut the power there.
    """

    def __init__(self, folder: Path, durable: Callable[[str], None] = lambda what: None) -> None:
        self.folder = folder
        self._durable = durable

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other updater out.

        Raises:
            UpdateAway: one is at work already.
            UpdateError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            handle = os.open(self.folder / "update.lock", flags, 0o600)
        except OSError as error:
            raise UpdateError(f"{self.folder}: {error.strerror}; update as root") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise UpdateAway(f"{self.folder}: another update is at work; wait for it") from error
        finally:
            os.close(handle)

    def state(self) -> State:
        """Return what an update has come to.

        Raises:
            UpdateError: the file is damaged.
        """
        file = self.folder / STATE
        if not file.exists():
            return State()
        try:
            said: dict[str, Any] = read_json(file, MAX_STATE_BYTES)
            state = State(**(said | {"refused": tuple(said["refused"])}))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UpdateError(f"{file}: not readable ({error}); restore or remove it") from error
        if state.phase not in PHASES:
            raise UpdateError(f"{file}: there is no phase '{state.phase}'; restore or remove it")
        return state

    def keep(self, state: State) -> State:
        """Write the state so that it is on the disk when this returns."""
        part = self.folder / (STATE + ".new")
        with part.open("w", encoding="utf-8") as stream:
            json.dump(asdict(state), stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(self.folder / STATE)
        self._settled(f"state {state.phase}")
        return state

    def at(self, link: str) -> str:
        """Return the id of the release that ``current`` or ``previous`` points to, or nothing."""
        path = self.folder / link
        return path.readlink().name if path.is_symlink() else ""

    def has(self, release: str) -> bool:
        """Tell whether a release is here, complete."""
        return bool(release) and self._mark(release).is_file()

    def begin(self, release: str) -> Path:
        """Return the folder to make a release in; what an earlier try left there is removed."""
        folder = self.folder / RELEASES / release
        self._mark(release).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(exist_ok=True)
        self._settled(f"room for {release}")
        return folder

    def complete(self, release: str) -> None:
        """Let a release count, once all of it is on the disk.

        It is made where it will run, for an environment of Python cannot be moved.
        """
        folder = self.folder / RELEASES / release
        for path in (folder, *folder.rglob("*")):
            if not path.is_symlink():
                _sync(path)
        self._durable(f"files of {release}")
        self._mark(release).touch()
        _sync(self._mark(release))
        _sync(folder.parent)
        self._settled(f"release {release}")

    def point(self, link: str, release: str) -> None:
        """Let a link point to a release; there is no moment without the link."""
        if self.at(link) == release:
            return
        new = self.folder / f"{link}.new"
        new.unlink(missing_ok=True)
        new.symlink_to(Path(RELEASES) / release)
        new.replace(self.folder / link)
        self._settled(f"{link} -> {release}")

    def swap(self, state: State) -> State:
        """Put ``state.to`` to work; does again what a power cut left undone."""
        if state.back:
            self.point("previous", state.back)
        self.point("current", state.to)
        return self.keep(replace(state, phase="probation"))

    def go_back(self, state: State) -> State:
        """Put ``state.back`` to work again, and remember what did not prove itself."""
        self.point("current", state.back)
        refused = (*(r for r in state.refused if r != state.to), state.to)[-20:]
        return self.keep(replace(state, phase="idle", refused=refused, to="", back="", trials=0))

    def sweep(self) -> None:
        """Remove what nobody needs: releases beside the two slots, and what was being fetched."""
        needed = {self.at("current"), self.at("previous")}
        for folder in (self.folder / RELEASES).glob("*"):
            if folder.is_dir() and folder.name not in needed:
                self._mark(folder.name).unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(self.folder / INCOMING, ignore_errors=True)

    def _mark(self, release: str) -> Path:
        """Not in the release: a sealed bundle takes no file that its manifest does not name."""
        return self.folder / RELEASES / (release + COMPLETE)

    def _settled(self, what: str) -> None:
        _sync(self.folder)
        self._durable(what)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
