"""Time as an argument, so that tests can wind it."""

import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Protocol

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


class Clock(Protocol):
    """Monotonic time for durations and wall time for records."""

    def now_ns(self) -> int:
        """Return monotonic time, nanoseconds."""

    def wall(self) -> datetime:
        """Return the date and time, UTC."""

    def sleep_until(self, t_ns: int) -> None:
        """Return once ``now_ns()`` has reached ``t_ns``."""


class SystemClock:
    """The machine's clock."""

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def wall(self) -> datetime:
        return datetime.now(timezone.utc)

    def sleep_until(self, t_ns: int) -> None:
        while (left := t_ns - time.monotonic_ns()) > 0:
            time.sleep(left / NS_PER_S)


class ManualClock:
    """A clock that stands still until it is told to move; for tests and replays."""

    def __init__(self, wall: datetime = datetime(2026, 1, 1, tzinfo=timezone.utc)) -> None:
        self._start = wall
        self._now_ns = 0
        self._moved = threading.Condition()

    def now_ns(self) -> int:
        return self._now_ns

    def wall(self) -> datetime:
        return self._start + timedelta(microseconds=self._now_ns / 1000)

    def advance(self, ns: int) -> None:
        """Move time forward by ``ns`` and wake whoever sleeps."""
        with self._moved:
            self._now_ns += ns
            self._moved.notify_all()

    def sleep_until(self, t_ns: int) -> None:
        """Advance to ``t_ns`` at once: nobody waits in manual time."""
        if t_ns > self._now_ns:
            self.advance(t_ns - self._now_ns)
