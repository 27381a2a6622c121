"""Verdict by verdict: a replay beside the golden records of an earlier one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.limits import bounded_lines, json_of
from pipeline.types import Record

MOVED_FRAMES = 2
"""A part counts as the same if its first and last frames differ by no more."""

MAX_LINE_BYTES = 64 << 10
MAX_LINES = 1_000_000


@dataclass(frozen=True, slots=True)
class GoldenPart:
    """What a replay must repeat: the frames that show a part, and its verdict."""

    part: int
    verdict: str
    first_frame: int
    last_frame: int


@dataclass(frozen=True, slots=True)
class Difference:
    """One part that differs.

    Attributes:
        kind: ``flipped`` (another verdict), ``new``, ``lost``, or ``moved`` (other frames).
        golden, now: the part then and now; None where there is none.
    """

    kind: str
    golden: GoldenPart | None
    now: GoldenPart | None

    @property
    def first_frame(self) -> int:
        """Return the frame that first showed the part, then if there was one."""
        return self._part.first_frame

    @property
    def _part(self) -> GoldenPart:
        part = self.golden or self.now
        assert part is not None
        return part

    def __str__(self) -> str:
        part = self._part
        where = f"part {part.part} (frames {part.first_frame} to {part.last_frame})"
        if self.golden and self.now:
            detail = {
                "flipped": f"{self.golden.verdict} -> {self.now.verdict}",
                "moved": f"now frames {self.now.first_frame} to {self.now.last_frame}",
            }[self.kind]
            return f"{self.kind}: {where}: {detail}"
        return f"{self.kind}: {where}: {part.verdict}"


def golden_parts(records: Sequence[Record]) -> tuple[GoldenPart, ...]:
    """Reduce records to what must not change from replay to replay."""
    return tuple(
        GoldenPart(
            r.part,
            r.verdict.value,
            r.first_frame,
            r.last_frame,
        )
        for r in records
    )


def write_golden(file: Path, parts: Sequence[GoldenPart]) -> None:
    """Write a golden file: JSON, one line per part."""
    rows = [json.dumps({name: getattr(p, name) for name in p.__slots__}) for p in parts]
    try:
        file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; cannot write the golden records") from error


def read_golden(file: Path) -> tuple[GoldenPart, ...]:
    """Read a golden file.

    Raises:
        ConfigError: the file or a line of it is not as it should be.
    """
    try:
        lines = bounded_lines(file, MAX_LINE_BYTES, MAX_LINES)
        return tuple(_golden_part(json_of(line)) for _, line in lines)
    except OSError as error:
        raise ConfigError(
            f"{file}: {error.strerror}; write golden records with --update-golden"
        ) from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ConfigError(f"{file}: not a golden file: {error!r}") from error


def differences(golden: Sequence[GoldenPart], now: Sequence[GoldenPart]) -> tuple[Difference, ...]:
    """Return every part that was flipped, moved, lost or is new, in the order of the frames."""
    left = list(now)
    found = []
    for old in golden:
        new = max(left, key=lambda p: _overlap(old, p), default=None)
        if new is None or _overlap(old, new) <= 0:
            found.append(Difference("lost", old, None))
            continue
        left.remove(new)
        if old.verdict != new.verdict:
            found.append(Difference("flipped", old, new))
        elif _has_moved(old, new):
            found.append(Difference("moved", old, new))
    found += [Difference("new", None, part) for part in left]
    return tuple(sorted(found, key=lambda d: d.first_frame))


def _overlap(a: GoldenPart, b: GoldenPart) -> int:
    return min(a.last_frame, b.last_frame) - max(a.first_frame, b.first_frame) + 1


def _has_moved(a: GoldenPart, b: GoldenPart) -> bool:
    return (
        abs(a.first_frame - b.first_frame) > MOVED_FRAMES
        or abs(a.last_frame - b.last_frame) > MOVED_FRAMES
    )


def _golden_part(row: dict[str, Any]) -> GoldenPart:
    return GoldenPart(
        int(row["part"]),
        str(row["verdict"]),
        int(row["first_frame"]),
        int(row["last_frame"]),
    )
