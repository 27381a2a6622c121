"""Which line the demo shows: what its page offers, what is chosen there, and what is shown now.

Page and demo are two processes. The page writes a wish into the folder of the window; the demo
takes it away, ends the line that runs, and begins the one that was chosen.
"""

from __future__ import annotations

import json
import re
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.errors import ConfigError, LineguardError
from pipeline.replay import VIDEO_SUFFIXES, source_section
from pipeline.trouble import read_wishes

WISH = "line.json"
SHOWN = "line-shown.json"
FIRST, VIDEO, WEBCAM = "first", "video:", "webcam:"
LOOK_S = 0.1
VIDEO_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z ._-]{0,79}")
VIDEOS_AT_MOST = 100
DEVICES = Path("/dev")


@dataclass(frozen=True, slots=True)
class Shown:
    """What the demo says of its lines.

    Attributes:
        first: the line that it began with, in words.
        folders: whose videos it offers; the page puts what is sent to it into the last one.
        now: id of the line that runs.
        said: why the line that was chosen before it could not be shown, or "".
    """

    first: str
    folders: tuple[str, ...]
    now: str = FIRST
    said: str = ""


def read_shown(folder: Path) -> Shown | None:
    """Return what a demo says in its window, or None if there is none."""
    values = read_wishes(folder / SHOWN)
    return Shown(**values | {"folders": tuple(values["folders"])}) if values else None


def offers(shown: Shown) -> dict[str, str]:
    """Return the lines that can be chosen now: id and words."""
    names = sorted({file.name for folder in shown.folders for file in _videos(Path(folder))})
    return {
        FIRST: shown.first,
        **{VIDEO + name: name for name in names[:VIDEOS_AT_MOST]},
        **{f"{WEBCAM}{number}": f"Webcam {DEVICES}/video{number}" for number in webcams()},
    }


def webcams(devices: Path = DEVICES) -> tuple[int, ...]:
    """Return the numbers of the video devices of this machine."""
    named = (re.fullmatch(r"video(\d{1,2})", device.name) for device in devices.glob("video*"))
    return tuple(sorted(int(found[1]) for found in named if found))


def wish(folder: Path, line: str) -> None:
    """Ask the demo for another line; errors as ``Path.write_text``."""
    fresh = folder / f"{WISH}.new"
    fresh.write_text(json.dumps({"line": line}))
    fresh.replace(folder / WISH)


def filmed_line(video: Path, *, endless: bool, realtime: bool) -> dict[str, Any]:
    """Return the camera section of a video; an endless one begins again at its end.

    Raises:
        ConfigError: there is no such video.
    """
    section = source_section(video, realtime=realtime)
    if section["kind"] != "video":
        raise ConfigError(f"{video}: not a video; name one of {', '.join(VIDEO_SUFFIXES)}")
    return section | {"loop": endless}


def webcam(number: int) -> dict[str, Any]:
    """Return the camera section of a webcam."""
    return {"kind": "v4l2", "device": f"{DEVICES}/video{number}"}


class Lines:
    """The demo's side: holds the line that is to run; use it in a ``with`` block.

    Args:
        folder: of the window.
        first: camera section of the line that it begins with.
        words: what that line is called.
        videos: a folder whose videos are offered too, or None.

    Attributes:
        section: camera section of the line that is to run now.
    """

    def __init__(
        self, folder: Path, first: Mapping[str, Any], words: str, videos: Path | None = None
    ) -> None:
        if videos is not None and not videos.is_dir():
            raise ConfigError(f"--videos {videos}: no such folder; name one that holds videos")
        self.section = dict(first)
        self._folder = folder
        self._first = dict(first)
        self._uploads = tempfile.TemporaryDirectory(prefix="lineguard-videos-")
        named = (*([str(videos.resolve())] if videos else ()), self._uploads.name)
        self._shown = Shown(words, named)
        self._wanted: str | None = None
        self._stop: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="lines", daemon=True)

    def __enter__(self) -> Lines:
        (self._folder / WISH).unlink(missing_ok=True)
        self._tell(self._shown)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        (self._folder / SHOWN).unlink(missing_ok=True)
        self._uploads.cleanup()

    @property
    def words(self) -> str:
        """What the line that is to run now is called."""
        return offers(self._shown).get(self._shown.now, self._shown.now)

    def runs(self, stop: Callable[[], None]) -> None:
        """Take note of what ends the line that runs now; it is called once another is chosen."""
        with self._lock:
            self._stop = stop
            wanted = self._wanted
        if wanted is not None:
            stop()

    def advance(self) -> bool:
        """Take up what was chosen; tell whether there is a line to be run."""
        with self._lock:
            wanted, self._wanted, self._stop = self._wanted, None, lambda: None
        if wanted is None:
            return False
        try:
            self.section = self._section(wanted)
            self._tell(Shown(self._shown.first, self._shown.folders, wanted))
        except ConfigError as error:
            self._tell(Shown(self._shown.first, self._shown.folders, self._shown.now, str(error)))
        return True

    def fall_back(self, error: LineguardError) -> bool:
        """Go back to the first line and say why; False if that is the one that failed."""
        if self._shown.now == FIRST:
            return False
        self.section = dict(self._first)
        self._tell(Shown(self._shown.first, self._shown.folders, FIRST, str(error)))
        return True

    def _section(self, line: str) -> dict[str, Any]:
        if line == FIRST:
            return dict(self._first)
        if line not in offers(self._shown):
            raise ConfigError(f"{line}: this line is not offered any more; choose another one")
        if line.startswith(WEBCAM):
            return webcam(int(line.removeprefix(WEBCAM)))
        name = line.removeprefix(VIDEO)
        found = (Path(folder) / name for folder in self._shown.folders)
        return filmed_line(next(f for f in found if f.is_file()), endless=True, realtime=True)

    def _tell(self, shown: Shown) -> None:
        self._shown = shown
        fresh = self._folder / f"{SHOWN}.new"
        fresh.write_text(json.dumps(asdict(shown)))
        fresh.replace(self._folder / SHOWN)

    def _look(self) -> None:
        while not self._ended.wait(LOOK_S):
            wanted = read_wishes(self._folder / WISH).get("line")
            if wanted is None:
                continue
            with self._lock:
                self._wanted, stop = str(wanted), self._stop
            (self._folder / WISH).unlink(missing_ok=True)  # gone means taken: read by who waits
            stop()


def _videos(folder: Path) -> Sequence[Path]:
    """Return the videos of a folder whose names are plain; links lead elsewhere: left out."""
    try:
        files = list(folder.iterdir())
    except OSError:
        return ()
    return [
        file
        for file in files
        if file.suffix.lower() in VIDEO_SUFFIXES
        and VIDEO_NAME.fullmatch(file.name)
        and file.is_file()
        and not file.is_symlink()
    ]
