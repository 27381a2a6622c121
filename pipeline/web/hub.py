"""What happens on the line, as it happens: followed by two threads, told to every open page."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from pipeline.errors import LineguardError
from pipeline.live import View
from pipeline.quality.truthfile import TruthFile
from pipeline.web import queries
from pipeline.web.health import judge
from pipeline.web.index import Index, catch_up
from pipeline.web.ledger import LedgerReader
from pipeline.web.paint import paint_live

log = logging.getLogger(__name__)

FOLD = 2000
TICK_S = 0.1
REST_S = 0.5
FRAME_S = 0.005
RECORDS_TOLD = 20
PICTURES_PER_S = 600
"""Live pictures that are sent at most, to all viewers together: what watching costs the machine is
bounded, however many watch. Twenty viewers see up to 30 a second, forty up to 15."""


class Told:
    """The newest value, for any number of waiting tasks; who is slow gets the next but one."""

    def __init__(self) -> None:
        self.value: Any = None
        self.watchers = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say in which loop the watchers wait."""
        self._loop = loop

    def tell(self, value: Any) -> None:
        """Give a new value; any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._set, value)

    async def each(self) -> AsyncIterator[Any]:
        """Yield the newest value, then every newer one that there is time for."""
        self.watchers += 1
        try:
            shown = None
            while True:
                changed = self._changed
                if self.value is not None and self.value is not shown:
                    shown = self.value
                    yield shown
                    continue
                await changed.wait()
        finally:
            self.watchers -= 1

    def _set(self, value: Any) -> None:
        self.value = value
        self._changed.set()
        self._changed = asyncio.Event()


class Hub:
    """Follows the station's window and ledger.

    Attributes:
        line: the newest snapshot of the line, a dict; told ten times a second at most.
        picture: the newest live picture, JPEG; painted only while somebody watches.
    """

    def __init__(
        self, ledger: LedgerReader, index: Index, view: View, truth: TruthFile | None
    ) -> None:
        self.line = Told()
        self.picture = Told()
        self._ledger = ledger
        self._index = index
        self._view = view
        self._truth = truth
        self._records: list[dict[str, Any]] = []
        self._figures: dict[str, Any] = {}
        self._fault: str | None = None
        self._told: Any = None
        self._told_at = 0.0
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to follow."""
        self.line.bind(loop)
        self.picture.bind(loop)
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True)
            for name, run in (("follow", self._follow), ("paint", self._paint))
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End both threads."""
        self._ended.set()
        for thread in self._threads:
            thread.join(5)

    def _follow(self) -> None:
        counted_at = 0.0
        run = None
        while not self._ended.is_set():
            behind = self._caught(self._take_new)
            state = self._view.state()
            fresh = behind is not None and behind > 0
            if fresh or time.monotonic() - counted_at > REST_S:
                counted_at = time.monotonic()
                run = state.get("run") if state else run
                self._caught(lambda run=run: self._count(run))  # type: ignore[misc]
            self._tell(self._snapshot(state))
            if not behind or behind < FOLD:
                self._ended.wait(TICK_S)

    def _tell(self, snapshot: dict[str, Any]) -> None:
        """Tell what changed at once, and what only counts up twice a second."""
        newest = self._records[-1]["number"] if self._records else 0
        told = snapshot["health"], self._figures, newest
        if told != self._told or time.monotonic() - self._told_at > REST_S:
            self._told, self._told_at = told, time.monotonic()
            self.line.tell(snapshot)

    def _caught(self, work: Callable[[], Any]) -> Any:
        """Do something that may fail while the disk is full; say so instead of ending."""
        try:
            done = work()
        except LineguardError as error:
            if self._fault is None:
                log.warning("%s", error)
            self._fault = str(error)
            return None
        self._fault = None
        return done

    def _take_new(self) -> int:
        folded = catch_up(self._index, self._ledger, FOLD)
        for _, record in folded[-RECORDS_TOLD:]:
            summary = queries.by_id(self._index, record["id"])
            if summary is not None:
                summary["labels"] = list(dict.fromkeys(d["label"] for d in record["defects"]))
                summary["reasons"] = record["reasons"]
                self._records = [*self._records, summary][-RECORDS_TOLD:]
        if self._truth is not None:
            for number, known in self._truth.match(folded):
                self._index.note_truth(number, known.good, known.defects)
                for summary in self._records:
                    if summary["number"] == number:
                        summary["good"] = known.good
        return len(folded)

    def _count(self, run: str | None) -> None:
        now_ms = int(time.time() * 1000)
        self._figures = {
            **queries.counts(self._index, run, now_ms),
            "truth": queries.truth(self._index, run),
            "behind": self._ledger.last_number() - self._index.folded[0],
        }

    def _snapshot(self, state: Mapping[str, Any] | None) -> dict[str, Any]:
        health = judge(state, time.monotonic_ns())
        reasons, level, trusted = health.reasons, health.level, health.trusted
        if self._fault is not None:
            reasons = (*reasons, f"The dashboard: {self._fault}")
            level, trusted = "fault", False
        said = state or {}
        return {
            "health": {
                "level": level,
                "title": health.title if self._fault is None else "Dashboard at fault",
                "reasons": reasons,
                "trusted": trusted,
            },
            "run": said.get("run"),
            "station": said.get("station"),
            "latency_ms": said.get("latency_ms"),
            "frames": said.get("frames"),
            "figures": self._figures,
            "records": self._records,
        }

    def _paint(self) -> None:
        while not self._ended.is_set():
            if self.picture.watchers == 0 and self.picture.value is not None:
                self._ended.wait(TICK_S)
                continue
            begun_s = time.monotonic()
            glimpse = self._view.next_frame()
            if glimpse is None:
                self._ended.wait(FRAME_S)
                continue
            self._caught_painting(lambda g=glimpse: paint_live(g))  # type: ignore[misc]
            rest_s = begun_s + self.picture.watchers / PICTURES_PER_S - time.monotonic()
            self._ended.wait(max(rest_s, 0))

    def _caught_painting(self, paint: Callable[[], bytes]) -> None:
        try:
            self.picture.tell(paint())
        except (LineguardError, ValueError, KeyError, TypeError) as error:
            log.warning("a live frame cannot be painted: %r", error)
