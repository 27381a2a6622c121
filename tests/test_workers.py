"""Several workers look at pictures at once; what is decided, and in which order, stays the same."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipeline.bundle import Threshold
from pipeline.errors import ModelError
from pipeline.inspection import Inspector
from pipeline.recipe import Recipe
from pipeline.rules import Rulebook
from pipeline.triggers import Trigger
from pipeline.triggers.every_frame import EveryFrame
from pipeline.triggers.presence import Options, Presence
from pipeline.types import Verdict
from pipeline.workers import BEGUN_PER_WORKER, Workers, shares
from tests.doubles import LIMIT_S, Belt, SpotDetector, frames_of, until

THRESHOLDS = {label: Threshold(fail=0.5, unsure=0.3) for label in SpotDetector.labels}
BELT = Belt(parts=4, bad=frozenset({1}))


def line(workers: Workers[SpotDetector], trigger: Trigger, **settings: Any) -> Inspector:
    rulebook = Rulebook(Recipe(name="any"), THRESHOLDS)
    return Inspector(trigger, SpotDetector(), rulebook, look=workers.look, **settings)


def passing_at_once() -> list[Any]:
    return frames_of([BELT.picture(100 + 140 * k) for k in range(4)])


def test_a_picture_that_is_done_first_waits_for_the_one_before() -> None:
    second_came = threading.Event()
    turn = threading.Lock()
    turns = iter([lambda: second_came.wait(LIMIT_S), second_came.set])

    def take_turn() -> None:
        with turn:
            mine = next(turns)
        mine()

    workers = Workers([SpotDetector(before=take_turn) for _ in range(2)])
    inspector = line(workers, EveryFrame())
    first, second = passing_at_once()[:2]
    done = [*inspector.inspect(first), *inspector.inspect(second), *inspector.finish(0)]
    assert second_came.is_set(), "the second was looked at while the first one still was"
    assert [i.part.id for i in done] == [1, 2]
    assert [i.part.first_frame for i in done] == [first.seq, second.seq]


@pytest.mark.parametrize("sure_by", [None, 0.1])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_workers_decides_as_none_does(count: int, sure_by: float | None) -> None:
    frames = frames_of(BELT.passing(5))
    rulebook = Rulebook(Recipe(name="any"), THRESHOLDS)
    alone = Inspector(Presence(Options()), SpotDetector(), rulebook, sure_by=sure_by)
    workers = Workers([SpotDetector() for _ in range(count)])
    several = line(workers, Presence(Options()), sure_by=sure_by)
    done = [
        [
            (i.part, i.decision, i.defects, i.views, i.picture_box, i.stamps)
            for i in (*(i for f in frames for i in inspector.inspect(f)), *inspector.finish(0))
        ]
        for inspector in (alone, several)
    ]
    assert done[0] == done[1]
    assert len(done[0]) == 4


def test_a_part_is_shown_without_a_verdict_until_its_pictures_are_done() -> None:
    go_on = threading.Event()
    workers = Workers([SpotDetector(before=lambda: go_on.wait(LIMIT_S) and None)])
    inspector = line(workers, Presence(Options()), views=1)
    shown = frames_of([BELT.picture(way) for way in (0, 20, 40, 60, 80, 100)])
    assert [i for f in shown for i in inspector.inspect(f)] == []
    assert [view.decision for view in inspector.in_view()] == [None]
    go_on.set()
    assert [i.decision.verdict for i in inspector.finish(0)] == [Verdict.PASS]


def test_a_verdict_that_is_due_comes_without_another_frame() -> None:
    go_on = threading.Event()
    workers = Workers([SpotDetector(before=lambda: go_on.wait(LIMIT_S) and None)])
    inspector = line(workers, EveryFrame())
    assert inspector.inspect(passing_at_once()[0]) == ()
    assert inspector.owes
    go_on.set()
    done: list[Any] = []
    until(lambda: done.extend(inspector.settle()) or bool(done), "the verdict")
    assert [i.decision.verdict for i in done] == [Verdict.PASS]
    assert not inspector.owes


def test_a_model_that_fails_in_a_worker_stops_the_line_and_leaves_no_part_undecided() -> None:
    workers = Workers([SpotDetector(fail_at=2)])
    inspector = line(workers, EveryFrame())
    frames = passing_at_once()
    done = []
    with pytest.raises(ModelError, match="gave up"):
        for frame in frames:
            done += inspector.inspect(frame)
        inspector.finish(0)
    done += inspector.give_up("the model failed", 0)
    assert [i.part.id for i in done] == list(range(1, len(done) + 1))
    assert len(done) >= 2
    assert [i.decision.verdict for i in done if i.part.id == 2] == [Verdict.UNSURE]


def test_who_brings_more_than_the_workers_can_take_waits() -> None:
    go_on = threading.Event()
    workers = Workers([SpotDetector(before=lambda: go_on.wait(LIMIT_S) and None)])
    (frame,) = passing_at_once()[:1]
    box = EveryFrame().sightings(frame)[0].box
    for _ in range(BEGUN_PER_WORKER):
        workers.look(frame.image, box)
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(workers.look, frame.image, box)
        assert not waiting.done()
        go_on.set()
        assert len(waiting.result(LIMIT_S).result(LIMIT_S).found) == 0


def test_every_worker_is_asked_once_in_a_self_test() -> None:
    detectors = [SpotDetector() for _ in range(3)]
    workers = Workers(detectors)
    asked: list[SpotDetector] = []
    workers.each(asked.append)
    workers.each(asked.append)
    assert all(asked.count(detector) == 2 for detector in detectors)


@pytest.mark.parametrize(
    ("workers", "cores", "threads"),
    [(2, 2, (1, 1)), (2, 4, (2, 2)), (3, 8, (3, 3, 2)), (4, 2, (1, 1, 1, 1))],
)
def test_threads_sum_to_the_cores(workers: int, cores: int, threads: tuple[int, ...]) -> None:
    assert shares(workers, cores) == threads
