"""Whether the line may trust the verdicts: judged from faults, told to outputs and receivers."""

import logging
import threading
from collections.abc import Callable, Sequence

from pipeline.clock import Clock
from pipeline.errors import OutputError
from pipeline.outputs import Output
from pipeline.publishers import Publisher

log = logging.getLogger(__name__)

RECEIVER = "publisher "
DISK = "disk"
NOTICE = "notice "
"""Something that a person has allowed, and that must not be forgotten."""

LOAD = "load"
"""More frames come than can be looked at."""

DEGRADING = (RECEIVER, DISK, NOTICE, LOAD)
"""Faults of parts whose name begins so degrade the station: verdicts stay good and recorded."""


class Readiness:
    """The state of a station: starting, ready, degraded, not ready, stopping or stopped.

    Any thread may call it.

    Args:
        run: names the start of the station.
        on_failure: called with the error of an output that could not be told.
    """

    def __init__(
        self,
        outputs: Sequence[Output],
        publishers: Sequence[Publisher],
        clock: Clock,
        run: str,
        on_failure: Callable[[OutputError], None],
    ) -> None:
        self._outputs = outputs
        self._publishers = publishers
        self._clock = clock
        self._run = run
        self._on_failure = on_failure
        self._faults: dict[str, str] = {}
        self._phase = self._state = "starting"
        self._lock = threading.RLock()

    @property
    def state(self) -> str:
        """The state that everybody was told last."""
        return self._state

    @property
    def faults(self) -> dict[str, str]:
        """What is at fault now, by part of the station; first what makes it not ready."""
        with self._lock:
            return dict(sorted(self._faults.items(), key=lambda f: f[0].startswith(DEGRADING)))

    def fault(self, part: str, reason: str, level: int = logging.WARNING) -> None:
        """Note that a part of the station is at fault, or why it still is."""
        with self._lock:
            known = part in self._faults
            self._faults[part] = reason
        if not known:
            log.log(level, "%s: %s", part, reason)
            self._judge()

    def clear(self, part: str) -> None:
        """Note that a part of the station is well."""
        with self._lock:
            was = self._faults.pop(part, None)
        if was is not None:
            log.info("%s: well again", part)
            self._judge()

    def note(self, part: str, reason: str | None) -> None:
        """Note why a part is at fault, or with None that it is well; cheap if nothing changed."""
        if reason is not None:
            self.fault(part, reason)
        elif part in self._faults:
            self.clear(part)

    def seen(self) -> None:
        """Note that a frame came."""
        if self._phase == "starting" or "camera" in self._faults:
            self._phase = "seeing"
            self.clear("camera")
            self._judge()

    def enter(self, phase: str) -> None:
        """Begin a phase: stopping, stopped."""
        self._phase = phase
        self._judge()

    def _judge(self) -> None:
        """Tell everybody the state if it has changed.

        Judging and telling are one step: else a thread that judged before a fault could tell
        "ready" after it.
        """
        with self._lock:
            state = self._due()
            failed = self._tell(state) if state != self._state else ()
        for error in failed:
            self._on_failure(error)

    def _due(self) -> str:
        """Be ready only while frames come and nothing that a verdict needs is at fault."""
        if self._phase == "stopped":
            return "stopped"
        if any(not part.startswith(DEGRADING) for part in self._faults):
            return "not ready"
        if self._phase != "seeing":
            return self._phase
        return "degraded" if self._faults else "ready"

    def _tell(self, state: str) -> tuple[OutputError, ...]:
        """Tell outputs and receivers the new state; return the errors of outputs."""
        log.info("state: %s -> %s", self._state, state)
        self._state = state
        is_ready = state in ("ready", "degraded")
        failed = tuple(e for output in self._outputs if (e := _told(output, is_ready)))
        told = {
            "state": state,
            "ready": is_ready,
            "faults": dict(self._faults),
            "run": self._run,
            "time": self._clock.wall().isoformat(),
        }
        for publisher in self._publishers:
            publisher.state(told)
        return failed


def _told(output: Output, is_ready: bool) -> OutputError | None:
    """Tell an output; return its error instead of raising it, so that the others are told too."""
    try:
        output.ready(is_ready)
    except OutputError as error:
        return error
    return None
