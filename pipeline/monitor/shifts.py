"""Tells when a time of day has come, once each day."""

from collections.abc import Sequence
from datetime import datetime, time


class TimesOfDay:
    """Local times of day at which something is due.

    Args:
        times: HH:MM.
    """

    def __init__(self, times: Sequence[str]) -> None:
        self._times = sorted(time.fromisoformat(text) for text in times)
        self._last: datetime | None = None

    def due(self, now: datetime) -> bool:
        """Tell whether one of the times has come since the last question; the first one starts.

        Args:
            now: with its time zone; it is turned to local time.
        """
        last, self._last = self._last, now.astimezone()
        if last is None:
            return False
        return any(
            last < datetime.combine(day, at).astimezone() <= self._last
            for day in {last.date(), self._last.date()}
            for at in self._times
        )
