"""An asyncio loop in a thread of its own, for libraries that need one; its hanging shows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent import futures
from typing import Any, TypeVar

from pipeline.clock import NS_PER_MS
from pipeline.errors import OutputError

T = TypeVar("T")

HANGS_NS = 300 * NS_PER_MS
CALL_S = 100.0


class LoopThread:
    """Runs coroutines for callers that have no loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio.new_event_loop()
        self._asked_ns: int | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and return what it gives.

        Raises:
            OutputError: it takes too long.
        """
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_S)
        except futures.TimeoutError as error:
            raise OutputError(f"{self._name}: its server hangs since {CALL_S:.0f} s") from error

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Let a coroutine run beside everything else."""
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def check(self, t_ns: int) -> None:
        """Ask the loop for a sign of life, and see that it gave the last one.

        Raises:
            OutputError: it hangs.
        """
        if self._asked_ns is None:
            self._asked_ns = t_ns
            self._loop.call_soon_threadsafe(self._answer)
        elif t_ns - self._asked_ns > HANGS_NS:
            hangs_ms = (t_ns - self._asked_ns) // NS_PER_MS
            raise OutputError(f"{self._name}: its server hangs since {hangs_ms} ms")

    def close(self) -> None:
        """End the loop; may be called twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(2.0)

    def _answer(self) -> None:
        self._asked_ns = None
