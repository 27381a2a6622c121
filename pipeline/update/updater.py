"""The way of an update: fetch, check, stage, test, swap, probation; then it stays or goes back."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import NoReturn, Protocol

from pipeline.errors import UpdateError
from pipeline.signing import Trust
from pipeline.update.order import (
    MAX_PAGE_BYTES,
    PAGE,
    PAYLOAD,
    SIGNATURE,
    Order,
    check_fits,
    open_order,
    sha256_of,
)
from pipeline.update.slots import INCOMING, Slots, State
from pipeline.update.source import Source, fetch, read_page

log = logging.getLogger(__name__)

TRIALS = 2
"""Probations of one release: the second is for a power cut in the first."""


class Kind(Protocol):
    """What differs between a model and the program.

    Attributes:
        name: ``model`` or ``app``.
    """

    name: str

    def stage(self, payload: Path, release: Path) -> None:
        """Make the folder of a release out of a checked payload.

        Raises:
            UpdateError: it cannot be made.
        """

    def prove(self, release: Path) -> None:
        """Run it before it counts: it must load, and give the answers that are known.

        Raises:
            UpdateError: it does not.
        """


@dataclass(frozen=True, slots=True)
class Watch:
    """How a release that was put to work is judged.

    Attributes:
        restart: makes the station run what ``current`` points to; raises an UpdateError if it does
            not start.
        well: returns None when the release has proved itself, or why it has not; it takes the time
            that a probation takes.
    """

    restart: Callable[[], None]
    well: Callable[[], str | None]


class Updater:
    """Brings updates of one kind to one station.

    Args:
        target: what this station is (deploy/targets.toml).
    """

    def __init__(
        self, slots: Slots, kind: Kind, trust: Trust, target: str, watch: Watch,
        on_block: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._slots = slots
        self._kind = kind
        self._trust = trust
        self._target = target
        self._watch = watch
        self._on_block = on_block

    def apply(self, source: Source, now: datetime) -> str:
        """Bring an update to work; return the id of its release once it has proved itself.

        Raises:
            UpdateError: it was refused, or went back; what ran before runs on.
        """
        with self._slots.alone():
            state = self._settled(self._slots.state())
            order = self._order(source)
            check_fits(order, self._kind.name, self._target, state.sequence, now)
            if order.id in state.refused:
                raise UpdateError(f"{order.id} did not prove itself here before; offer another one")
            if not self._slots.has(order.id):
                self._stage(order, self._fetch(order, source))
            state = self._slots.keep(
                replace(
                    state, phase="swapping", sequence=order.page.sequence, to=order.id,
                    back=self._slots.at("current"), trials=0,
                )
            )  # fmt: skip
            self._probation(self._slots.swap(state))
            self._slots.sweep()
        return order.id

    def is_news(self, source: Source) -> bool:
        """Tell whether a source offers what this station has neither had nor refused.

        Raises:
            UpdateError: nobody can be asked, or no trusted key signed the offer.
        """
        state, order = self._slots.state(), self._order(source)
        return order.page.sequence > state.sequence and order.id not in state.refused

    def resume(self) -> State:
        """Finish what a power cut or a crash left: to be called at every boot.

        Raises:
            UpdateError: the release under probation did not prove itself; the one before runs.
        """
        with self._slots.alone():
            return self._settled(self._slots.state())

    def rollback(self) -> str:
        """Put the release before to work again; return its id.

        Raises:
            UpdateError: there is none.
        """
        with self._slots.alone():
            state, now = self._settled(self._slots.state()), self._slots.at("current")
            before = self._slots.at("previous")
            if not self._slots.has(before) or before == now:
                raise UpdateError(f"{self._slots.folder}: there is no release to go back to")
            self._go_back(replace(state, to=now, back=before))
            return before

    def _settled(self, state: State) -> State:
        if state.phase == "swapping":
            state = self._slots.swap(state)
        if state.phase == "probation":
            state = self._probation(state)
        if state.phase == "going back":
            state = self._go_back(state)
        return state

    def _probation(self, state: State) -> State:
        """Watch a release; at most twice, for one that takes the station down ends no probation."""
        if state.trials >= TRIALS:
            self._give_up(state, "the station did not come through its probation")
        state = self._slots.keep(replace(state, trials=state.trials + 1))
        if why := self._refuses_to_start() or self._watch.well():
            self._give_up(state, why)
        log.info("%s has proved itself", state.to)
        return self._slots.keep(replace(state, phase="idle", to="", back="", trials=0))

    def _refuses_to_start(self) -> str | None:
        """Restart the station; a release that it cannot start with has not proved itself."""
        try:
            self._watch.restart()
        except UpdateError as error:
            return str(error)
        return None

    def _give_up(self, state: State, why: str) -> NoReturn:
        if not state.back:
            self._slots.keep(replace(state, phase="idle", to="", trials=0))
            raise UpdateError(f"{state.to}: {why}; there is no release before it to go back to")
        back = state.back
        self._go_back(state)
        raise UpdateError(f"{state.to}: {why}; {back} is at work again")

    def _go_back(self, state: State) -> State:
        state = self._slots.keep(replace(state, phase="going back"))
        state = self._slots.go_back(state)
        self._watch.restart()
        return state

    def _order(self, source: Source) -> Order:
        page, signature = (read_page(source, p, MAX_PAGE_BYTES) for p in (PAGE, SIGNATURE))
        return open_order(page, signature, self._trust)

    def _fetch(self, order: Order, source: Source) -> Path:
        """Bring every file here and compare it; what is here already stays."""
        into = self._slots.folder / INCOMING / order.id
        for path, entry in order.page.files.items():
            file = into / path
            fetch(source, f"{PAYLOAD}/{path}", entry.size, file, self._on_block)
            if sha256_of(file) != entry.sha256:
                file.unlink()
                raise UpdateError(f"{path}: its bytes do not match the signed page (sha256)")
        return into

    def _stage(self, order: Order, payload: Path) -> None:
        release = self._slots.begin(order.id)
        try:
            self._kind.stage(payload, release)
            self._kind.prove(release)
        except UpdateError:
            shutil.rmtree(release, ignore_errors=True)
            raise
        self._slots.complete(order.id)
