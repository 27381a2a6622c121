"""How fast a backlog may leave: so many a second."""

from pipeline.clock import NS_PER_S, Clock


class Pace:
    """Holds a sender to a rate; time in which nothing was sent is not saved up.

    Args:
        per_s: how many a second.
    """

    def __init__(self, per_s: int, clock: Clock) -> None:
        self._per_s = per_s
        self._clock = clock
        self._free_ns = clock.now_ns()

    def wait(self, count: int) -> None:
        """Return once what went before has had its time; then ``count`` may go together."""
        self._clock.sleep_until(self._free_ns)
        self._free_ns = self._clock.now_ns() + count * NS_PER_S // self._per_s
