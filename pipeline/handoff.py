"""A bounded queue between two threads that says what it lost."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Handoff(Generic[T]):
    """Passes items on in order.

    Args:
        size: how many items may wait.
        lossy: when it is full, True drops the oldest item, False lets the giver wait.
    """

    def __init__(self, size: int, lossy: bool = False) -> None:
        self._items: deque[T] = deque()
        self._size = size
        self._lossy = lossy
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: T) -> T | None:
        """Give an item; return the item that was dropped for it, or the item itself if closed."""
        with self._changed:
            while len(self._items) >= self._size and not self._lossy and not self._closed:
                self._changed.wait()
            if self._closed:
                return item
            dropped = self._items.popleft() if len(self._items) >= self._size else None
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

    def take(self, most: int) -> list[T]:
        """Wait for an item, then return all that wait, up to ``most``; empty once closed."""
        with self._changed:
            while not self._items and not self._closed:
                self._changed.wait()
            batch = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._changed.notify_all()
            return batch
