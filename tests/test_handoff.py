"""The queue between two threads loses nothing in silence and never leaves one of them waiting."""

import threading

import pytest

from pipeline.handoff import Handoff
from tests.doubles import LIMIT_S, until


def anything(item: object) -> bool:
    del item
    return True


def test_items_come_out_in_order() -> None:
    queue: Handoff[int] = Handoff(9)
    assert [queue.put(i) for i in range(5)] == [None] * 5
    assert queue.take(2) == [0, 1]
    queue.close()
    assert list(queue) == [2, 3, 4]
    assert queue.take(9) == []


def test_the_oldest_makes_room_where_that_is_allowed() -> None:
    queue: Handoff[int] = Handoff(2, anything)
    assert [queue.put(i) for i in range(4)] == [None, None, 0, 1]
    assert queue.take(9) == [2, 3]


def test_what_must_not_be_lost_stays_in_its_place() -> None:
    queue: Handoff[int | str] = Handoff(3, lambda item: isinstance(item, int))
    for item in (1, "gap", 2):
        queue.put(item)
    assert [queue.put(i) for i in (3, 4)] == [1, 2]
    assert queue.take(9) == ["gap", 3, 4]


def test_more_may_wait_while_the_oldest_that_may_be_lost_is_fresh() -> None:
    stale: set[int] = set()
    queue: Handoff[int] = Handoff(2, lambda item: item > 0, lambda item: item not in stale, most=4)
    assert [queue.put(i) for i in range(4)] == [None] * 4
    stale.add(1)
    assert queue.put(4) == 1
    assert queue.take(9) == [0, 2, 3, 4]


def test_the_giver_never_waits_for_what_is_fresh() -> None:
    queue: Handoff[int] = Handoff(2, anything, anything, most=3)
    assert [queue.put(i) for i in range(5)] == [None, None, None, 0, 1]


def test_a_closed_queue_hands_the_item_back() -> None:
    queue: Handoff[int] = Handoff(2)
    queue.close()
    assert queue.put(7) == 7


@pytest.mark.parametrize("ends", ["take", "close"])
def test_the_giver_waits_for_room_or_the_end(ends: str) -> None:
    queue: Handoff[int] = Handoff(1)
    queue.put(1)
    returned: list[int | None] = []
    giver = threading.Thread(target=lambda: returned.append(queue.put(2)), daemon=True)
    giver.start()
    assert not returned
    if ends == "take":
        assert queue.take(1) == [1]
    else:
        queue.close()
    giver.join(LIMIT_S)
    assert returned == [None if ends == "take" else 2]


def test_takers_that_wait_are_let_go_at_the_end() -> None:
    queue: Handoff[int] = Handoff(1)
    takers = [threading.Thread(target=lambda: list(queue), daemon=True) for _ in range(3)]
    for taker in takers:
        taker.start()
    queue.close()
    for taker in takers:
        taker.join(LIMIT_S)
    assert not any(taker.is_alive() for taker in takers)


def test_nothing_is_lost_between_two_threads() -> None:
    queue: Handoff[int] = Handoff(3)
    taken: list[int] = []
    taker = threading.Thread(target=lambda: taken.extend(queue), daemon=True)
    taker.start()
    for i in range(5000):
        queue.put(i)
    queue.close()
    taker.join(LIMIT_S)
    assert taken == list(range(5000))


def test_given_is_taken_plus_dropped() -> None:
    queue: Handoff[int] = Handoff(3, anything)
    taken: list[int] = []
    taker = threading.Thread(target=lambda: taken.extend(queue), daemon=True)
    taker.start()
    dropped = [i for i in (queue.put(i) for i in range(5000)) if i is not None]
    queue.close()
    until(lambda: not taker.is_alive())
    assert sorted(taken + dropped) == list(range(5000))
