"""What was decided, recorded and collected, compared part by part."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import schema
from pipeline.chaos.witness import Act
from pipeline.collect.sqlite import account, read_hashes
from pipeline.store import read_records
from pipeline.types import Record, Verdict

Key = tuple[str, int]
"""A start of the station, and the number of a part in it."""


@dataclass(frozen=True, slots=True)
class Audit:
    """The books of a run.

    Attributes:
        witnessed: commands that the gate saw.
        cut_off: records at the very end of a start that the gate did not see: the process was
            killed between the commit and the command. They were decided, and no part passed.
        recorded: records in the ledger.
        collected: records in the archive.
        lost: decided and not recorded, or recorded and not collected.
        double: parts that were commanded, recorded or collected twice.
        altered: differ between gate and ledger or ledger and archive, or do not fit their chain.
        phantom: recorded or collected, but never decided.
    """

    witnessed: int
    cut_off: int
    recorded: int
    collected: int
    lost: int
    double: int
    altered: int
    phantom: int

    @property
    def decided(self) -> int:
        return self.witnessed + self.cut_off

    @property
    def is_whole(self) -> bool:
        same = self.decided == self.recorded == self.collected
        return same and not (self.lost or self.double or self.altered or self.phantom)

    def figures(self) -> dict[str, Any]:
        """Return the figures under their documented keys."""
        return {
            "decided": self.decided,
            "witnessed": self.witnessed,
            "cut_off": self.cut_off,
            "recorded": self.recorded,
            "collected": self.collected,
            "lost": self.lost,
            "double": self.double,
            "altered": self.altered,
            "phantom": self.phantom,
        }


def audit(acts: Sequence[Act], runs: Mapping[int, str], store: Path, archive: Path) -> Audit:
    """Compare the gate's journal with the ledger, and the ledger with the archive.

    Args:
        acts: what the gate saw.
        runs: the run that each station process wrote, by process id, as far as it wrote one.

    Raises:
        StoreError: the ledger or the archive cannot be read, or the ledger's chain is broken.
    """
    commands = [((runs.get(act.pid, f"pid {act.pid}"), act.part), act.rejected) for act in acts]
    decided = dict(commands)
    records = list(read_records(store))
    recorded = {(r.run, r.part): r for r in records}
    kept = {r.id: schema.sha256(r) for r in records}
    collected = read_hashes(archive)
    got = dict(collected)
    unseen = [key for key in recorded if key not in decided]
    cut_off = _cut_off(records, decided)
    return Audit(
        witnessed=len(decided),
        cut_off=len(cut_off),
        recorded=len(recorded),
        collected=len(got),
        lost=len(decided.keys() - recorded.keys()) + len(kept.keys() - got.keys()),
        double=_repeated([key for key, _ in commands])
        + _repeated([(r.run, r.part) for r in records])
        + _repeated([id_ for id_, _ in collected]),
        altered=sum(
            (recorded[key].verdict is not Verdict.PASS) != rejected
            for key, rejected in commands
            if key in recorded
        )
        + sum(got[id_] != kept[id_] for id_ in got.keys() & kept.keys())
        + sum(station.unchained for station in account(archive)),
        phantom=len([k for k in unseen if k not in cut_off]) + len(got.keys() - kept.keys()),
    )


def _cut_off(records: Sequence[Record], decided: Mapping[Key, bool]) -> set[Key]:
    """Return the records after the last one of their run that the gate saw."""
    tails: dict[str, set[Key]] = {}
    for record in records:
        tail = tails.setdefault(record.run, set())
        key = (record.run, record.part)
        if key in decided:
            tail.clear()
        else:
            tail.add(key)
    return {key for tail in tails.values() for key in tail}


def _repeated(keys: Sequence[object]) -> int:
    return sum(count - 1 for count in Counter(keys).values())


def percentile(values: Sequence[float], share: int) -> float | None:
    """Return a percentile by nearest rank, or None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return round(ordered[max(0, math.ceil(share / 100 * len(ordered)) - 1)], 2)
