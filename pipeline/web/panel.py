"""The demo's panel: faults and lines, asked for through files in the window's folder."""

from __future__ import annotations

import json
import secrets
import shutil
from pathlib import Path
from typing import IO, Any

from pipeline.errors import StoreError
from pipeline.lines import VIDEO, VIDEO_NAME, Shown, offers, read_shown, wish
from pipeline.replay import VIDEO_SUFFIXES
from pipeline.trouble import FILE as FAULTS_FILE
from pipeline.trouble import OFFERED, read_wishes
from pipeline.web.access import Refused

MAX_VIDEO_BYTES = 64 << 20
UPLOADS_AT_MOST = 10


class Panel:
    """What people ask of the demo.

    Args:
        folder: of the window.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def faults(self) -> dict[str, dict[str, Any]]:
        """Return which faults the demo has been asked for, and why some cannot be made here."""
        return {
            "faults": read_wishes(self._folder / FAULTS_FILE),
            "offered": read_wishes(self._folder / OFFERED),
        }

    def ask_fault(self, name: str, on: bool) -> None:
        """Ask the demo to make a fault, or to end it.

        Raises:
            Refused: it cannot be made here.
            StoreError: there is no demo.
        """
        if on and (reason := read_wishes(self._folder / OFFERED).get(name)):
            raise Refused(400, str(reason))
        wanted = read_wishes(self._folder / FAULTS_FILE) | {name: on}
        fresh = self._folder / f"{FAULTS_FILE}.new"
        try:
            fresh.write_text(json.dumps(wanted))
            fresh.replace(self._folder / FAULTS_FILE)
        except OSError as error:
            raise StoreError(f"{fresh}: {error.strerror}; is the demo running?") from error

    def lines(self) -> dict[str, Any]:
        """Return which lines the demo can show, which it shows, and why another could not be."""
        shown = self._shown()
        return {
            "lines": [{"id": id, "words": words} for id, words in offers(shown).items()],
            "now": shown.now,
            "said": shown.said,
            "upload": {"suffixes": VIDEO_SUFFIXES, "most_bytes": MAX_VIDEO_BYTES},
        }

    def ask_line(self, line: str) -> None:
        """Ask the demo to show another line.

        Raises:
            Refused: it is not offered, or there is no demo.
            StoreError: the demo ended meanwhile.
        """
        if line not in offers(self._shown()):
            raise Refused(400, f"there is no line '{line}' here; is its camera plugged in?")
        try:
            wish(self._folder, line)
        except OSError as error:
            raise StoreError(f"{self._folder}: {error.strerror}; is the demo running?") from error

    def add_video(self, name: str, sent: IO[bytes]) -> str:
        """Keep a video among those that can be chosen; return its line's id.

        Raises:
            Refused: its name will not do, there are too many, or there is no demo.
            StoreError: there is no room.
        """
        folder = Path(self._shown().folders[-1])
        if not VIDEO_NAME.fullmatch(name) or Path(name).suffix.lower() not in VIDEO_SUFFIXES:
            raise Refused(400, f"name it in plain letters, ending in {', '.join(VIDEO_SUFFIXES)}")
        try:
            if len(list(folder.iterdir())) >= UPLOADS_AT_MOST:
                raise Refused(400, f"{UPLOADS_AT_MOST} videos were sent already; choose one")
            fresh = folder / f".{secrets.token_hex(8)}"
            try:
                with fresh.open("wb") as stream:
                    shutil.copyfileobj(sent, stream)
                fresh.replace(folder / name)
            finally:
                fresh.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{folder}: {error.strerror}; make room there") from error
        return VIDEO + name

    def _shown(self) -> Shown:
        shown = read_shown(self._folder)
        if shown is None:
            raise Refused(404, "there is no demo whose line could be changed; is it running?")
        return shown
