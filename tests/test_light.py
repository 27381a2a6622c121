"""How parts are lit: what a dim lamp hides must not pass."""

import numpy as np
import pytest

from pipeline.bundle import Threshold
from pipeline.inspection import Inspector
from pipeline.light import Light
from pipeline.recipe import Recipe
from pipeline.rules import Rulebook
from pipeline.triggers import every_frame, presence
from pipeline.types import Box, Frame, Inspection, Verdict
from tests.doubles import Belt, SpotDetector, frames_of

BOX = Box(0, 0, 64, 64)
BOOK = Rulebook(Recipe(name="r"), {n: Threshold(fail=0.5, unsure=0.3) for n in SpotDetector.labels})


def lit(level: float) -> np.ndarray:
    return np.full((64, 64), level, np.uint8)


def learned(level: float = 160) -> Light:
    """Return a light that has seen its first parts."""
    light = Light(None)
    for part in range(1, 5):
        light.see(lit(level), [(part, BOX)])
    return light


def test_half_of_the_usual_light_is_a_fault_until_it_is_back() -> None:
    light = learned()
    light.see(lit(100), [(5, BOX)])
    assert light.fault is None
    light.see(lit(70), [(5, BOX)])
    assert light.fault is not None and "too dark" in light.fault and "lamp" in light.fault
    for _ in range(3):
        assert light.fault is not None
        light.see(lit(150), [(6, BOX)])
    assert light.fault is None


def test_one_bright_look_does_not_end_the_fault() -> None:
    light = learned()
    for level in (70, 160, 160, 70, 160, 160):
        light.see(lit(level), [(5, BOX)])
    assert light.fault is not None


@pytest.mark.parametrize(("level", "said"), [(40, "too dark"), (230, "too bright")])
def test_limits_of_the_recipe_hold_from_the_first_part(level: float, said: str) -> None:
    light = Light((60, 200))
    light.see(lit(level), [(1, BOX)])
    assert light.fault is not None and said in light.fault


def test_nothing_is_learned_of_pictures_that_have_nothing_to_do_with_each_other() -> None:
    light = Light(None, learns=False)
    for part, level in enumerate((200, 20, 200, 20, 200, 20)):
        light.see(lit(level), [(part, BOX)])
    assert light.fault is None


def test_a_box_beyond_the_picture_says_nothing() -> None:
    light = Light((60, 200))
    light.see(lit(0), [(1, Box(200, 200, 300, 300))])
    assert light.fault is None


def passing(belt: Belt, dim_from: int, share: float) -> tuple[Inspector, list[Inspection]]:
    """Let a belt pass whose lamp is dimmed from some frame on."""
    inspector = Inspector(
        presence.create(presence.Options(contrast=3)), SpotDetector(), BOOK, views=3,
        light=Light(None),
    )  # fmt: skip
    done: list[Inspection] = []
    for frame in frames_of(belt.passing()):
        image = (frame.image * (share if frame.seq >= dim_from else 1)).astype(np.uint8)
        done += inspector.inspect(Frame(image, frame.seq, frame.t_ns, frame.camera))
    return inspector, done


def test_parts_under_a_dimmed_lamp_are_unsure_and_the_station_says_why() -> None:
    inspector, done = passing(Belt(parts=8), dim_from=50, share=0.4)
    verdicts = [i.decision.verdict for i in done]
    assert verdicts[:4] == [Verdict.PASS] * 4
    assert verdicts[-2:] == [Verdict.UNSURE] * 2
    assert "too dark" in done[-1].decision.reasons[0]
    assert inspector.fault is not None and "too dark" in inspector.fault


def test_a_lamp_that_ages_a_little_changes_nothing() -> None:
    inspector, done = passing(Belt(parts=8), dim_from=50, share=0.8)
    assert {i.decision.verdict for i in done} == {Verdict.PASS}
    assert inspector.fault is None


def test_a_triggered_part_in_a_dark_picture_is_unsure() -> None:
    light = Light((60, 255))
    trigger = every_frame.create(every_frame.Options())
    inspector = Inspector(trigger, SpotDetector(), BOOK, light=light)
    dark, bright = lit(20), lit(150)
    first, second = (
        inspector.inspect(Frame(image, seq, seq, "top"))[0].decision.verdict
        for seq, image in enumerate((bright, dark))
    )
    assert (first, second) == (Verdict.PASS, Verdict.UNSURE)
