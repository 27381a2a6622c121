"""Verdicts against the truth of a recording: escapes, overkill, parts missed or counted twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.limits import bounded_lines, json_of
from pipeline.quality.intervals import Share
from pipeline.types import Record, Verdict

MAX_LINE_BYTES = 64 << 10
MAX_LINES = 1_000_000


@dataclass(frozen=True, slots=True)
class TruePart:
    """A part that a recording shows, as a person or a generator knows it.

    Attributes:
        index: its number in the truth file.
        good: whether it should pass.
        centre_frame: a frame that shows it well.
    """

    index: int
    good: bool
    centre_frame: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Records of one replay beside the truth.

    Attributes:
        parts: true parts.
        missed: true parts without a record.
        double: records beyond the first one of a true part.
        phantom: records of no true part.
        escapes: bad parts that passed or were missed.
        overkill: good parts that failed.
        unsure: parts that were UNSURE, of all parts; the line rejects them too.
        rejected_good: good parts that did not pass (overkill and unsure).
    """

    parts: int
    missed: int
    double: int
    phantom: int
    escapes: Share
    overkill: Share
    unsure: Share
    rejected_good: Share


def read_truth(file: Path) -> tuple[TruePart, ...]:
    """Read a truth file: JSON lines with ``index``, ``good`` and ``centre_frame``.

    Raises:
        ConfigError: the file or a line of it is not as it should be.
    """
    parts = []
    number = 0
    try:
        for number, line in bounded_lines(file, MAX_LINE_BYTES, MAX_LINES):  # noqa: B007 - said below
            parts.append(_true_part(json_of(line)))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; --truth wants a .truth.jsonl file") from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ConfigError(f"{file}: line {number}: no truth of a part: {error!r}") from error
    return tuple(parts)


def compare(records: Sequence[Record], truth: Sequence[TruePart]) -> Comparison:
    """Match records with true parts by the frames that show them.

    Frames are all that is compared. Where two parts are in the picture at once, a second record of
    the one and a missing record of the other look like one record of each, and count as that.
    """
    found: dict[int, list[Record]] = {part.index: [] for part in truth}
    phantom = 0
    for record in records:
        near = [p for p in truth if record.first_frame <= p.centre_frame <= record.last_frame + 1]
        # A part is decided before it has left: close behind another, the middle of its frames lies
        # between both, and the other has its record already.
        near = [p for p in near if not found[p.index]] or near
        middle = (record.first_frame + record.last_frame) / 2
        part = min(near, key=lambda p: abs(p.centre_frame - middle), default=None)
        if part is None:
            phantom += 1
        else:
            found[part.index].append(record)
    verdicts = {p.index: _worst(found[p.index]) for p in truth}
    bad = [p for p in truth if not p.good]
    good = [p for p in truth if p.good]
    return Comparison(
        parts=len(truth),
        missed=sum(not rows for rows in found.values()),
        double=sum(max(len(rows) - 1, 0) for rows in found.values()),
        phantom=phantom,
        escapes=Share(sum(verdicts[p.index] in (None, Verdict.PASS) for p in bad), len(bad)),
        overkill=Share(sum(verdicts[p.index] is Verdict.FAIL for p in good), len(good)),
        unsure=Share(sum(v is Verdict.UNSURE for v in verdicts.values()), len(truth)),
        rejected_good=Share(
            sum(verdicts[p.index] in (Verdict.FAIL, Verdict.UNSURE) for p in good), len(good)
        ),
    )


def _true_part(row: dict[str, Any]) -> TruePart:
    good = row["good"]
    if not isinstance(good, bool):
        raise ValueError(f"good is {good!r:.60}; write true or false")
    return TruePart(int(row["index"]), good, int(row["centre_frame"]))


def _worst(records: Sequence[Record]) -> Verdict | None:
    """Return the verdict that lets a part through if any does: one green record is an escape."""
    order = (Verdict.PASS, Verdict.UNSURE, Verdict.FAIL)
    return min((r.verdict for r in records), key=order.index, default=None)
