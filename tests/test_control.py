"""Control charts against a published example, and each rule on its own."""

import pytest

from pipeline.quality.control import LEAST_SUBGROUPS, p_chart

# Montgomery, Introduction to Statistical Quality Control, example 7.1: orange juice cans, n = 50.
CANS = [
    12, 15, 8, 10, 4, 7, 16, 9, 14, 10, 5, 6, 17, 12, 22, 8, 10, 5, 13, 11, 20, 18, 24, 15, 9,
    12, 7, 13, 9, 6,
]  # fmt: skip
OUTSIDE = "beyond three standard deviations"


def test_the_chart_of_a_textbook_flags_the_samples_that_the_book_flags() -> None:
    chart = p_chart(CANS, [50] * len(CANS))
    assert chart.centre == pytest.approx(0.2313, abs=1e-4)
    assert chart.points[0].low == pytest.approx(0.0524, abs=1e-4)
    assert chart.points[0].high == pytest.approx(0.4102, abs=1e-4)
    flagged = [i + 1 for i, point in enumerate(chart.points) if OUTSIDE in point.broken]
    assert flagged == [15, 23]


@pytest.mark.parametrize(
    ("counts", "rule"),
    [
        ([10, 14] * 4 + [11] * 9, "nine in a row"),
        ([12, 8] * 6 + [4, 6, 8, 10, 12, 14, 16], "six in a row"),
        ([10] * 12 + [17, 10, 17], "two of three"),
        ([10] * 12 + [40], OUTSIDE),
    ],
)
def test_each_rule_is_said_at_the_point_that_breaks_it(counts: list[int], rule: str) -> None:
    chart = p_chart(counts, [60] * len(counts))
    assert any(said.startswith(rule) for said in chart.points[-1].broken)
    assert not any(said.startswith(rule) for said in chart.points[8].broken)


def test_too_few_groups_have_no_limits_and_break_no_rule() -> None:
    chart = p_chart([50] + [0] * (LEAST_SUBGROUPS - 2), [50] * (LEAST_SUBGROUPS - 1))
    assert chart.centre is None
    assert all(point.broken == () for point in chart.points)


def test_a_line_without_any_reject_is_in_control() -> None:
    chart = p_chart([0] * 20, [10] * 20)
    assert all(point.broken == () and point.high == 0 for point in chart.points)
