"""A bounded queue between two threads that says what it lost."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


def _never(item: object) -> bool:
    del item
    return False


class Handoff(Generic[T]):
    """Passes items on in order.

    Args:
        size: how many items may wait.
        may_drop: which of them may be lost; when it is full, the oldest of these makes room. If
            there is none, the giver waits.
        is_fresh: which of these are too new to be lost yet; where the oldest is, up to ``most``
            items wait.
    """

    def __init__(
        self,
        size: int,
        may_drop: Callable[[T], bool] = _never,
        is_fresh: Callable[[T], bool] = _never,
        most: int | None = None,
    ) -> None:
        self._items: deque[T] = deque()
        self._size = size
        self._most = most or size
        self._may_drop = may_drop
        self._is_fresh = is_fresh
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: T) -> T | None:
        """Give an item; return the item that was dropped for it, or the item itself if closed."""
        with self._changed:
            dropped = self._make_room()
            if self._closed:
                return item
            self._items.append(item)
            self._changed.notify_all()
            return dropped

    def close(self) -> None:
        """Take no more items; the taker still gets those that wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Yield items until the queue is closed and empty."""
        while batch := self.take(1):
            yield from batch

    @property
    def ended(self) -> bool:
        """True once it is closed and nothing waits in it."""
        with self._changed:
            return self._closed and not self._items

    def take(self, most: int, wait_s: float | None = None) -> list[T]:
        """Wait for an item, then return all that wait, up to ``most``.

        Args:
            most: how many are taken at once.
            wait_s: how long to wait for the first one, seconds; None waits for as long as it takes.

        Returns:
            The items; none if the time is over or the queue is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, wait_s)
            batch = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._changed.notify_all()
            return batch

    def _make_room(self) -> T | None:
        """Return once an item fits or the queue is closed, with what was dropped for it."""
        while len(self._items) >= self._size and not self._closed:
            oldest = next((i for i, item in enumerate(self._items) if self._may_drop(item)), None)
            if oldest is None:
                self._changed.wait()
                continue
            dropped = self._items[oldest]
            if len(self._items) < self._most and self._is_fresh(dropped):
                return None
            del self._items[oldest]
            return dropped
        return None
