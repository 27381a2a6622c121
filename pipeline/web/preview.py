"""What other rules would have said of parts that were judged already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipeline.recipe import DefectRule
from pipeline.rules import Rulebook
from pipeline.types import Defect
from pipeline.web.board import Board
from pipeline.web.index import part_size

SHOWN = 60


def flips(board: Board, rules: Mapping[str, DefectRule], parts: int) -> dict[str, Any]:
    """Judge the newest parts by other rules.

    Args:
        rules: instead of those of the recipe, by label.
        parts: how many parts.

    Raises:
        ConfigError: a rule names an unknown label, or contradicts itself.
    """
    recipe = board.config.document.recipe.model_copy(update={"defects": dict(rules)})
    book = Rulebook(recipe, board.bundle.manifest.thresholds)
    in_force = Rulebook(board.config.document.recipe, board.bundle.manifest.thresholds)
    records = board.ledger.after(max(board.ledger.last_number() - parts, 0), parts)
    table: Counter[str] = Counter()
    flipped = []
    for kept in reversed(records):
        record = kept.values()
        was, now = record["verdict"], _judged(book, record)
        table[f"{was}>{now[0]}"] += 1
        if now[0] != was:
            flipped.append(
                {
                    "id": record["id"],
                    "part": record["part"],
                    "was": was,
                    "now": now[0],
                    "reasons": now[1],
                    "picture": record["image"] is not None,
                }
            )
    return {
        "parts": len(records),
        "table": dict(table),
        "flipped": flipped[:SHOWN],
        "count": len(flipped),
        # What scored lower than this was not kept, so lower thresholds cannot be judged.
        "floor": in_force.least_score,
        "below_floor": book.least_score < in_force.least_score,
    }


def _judged(book: Rulebook, record: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return verdict and reasons; what was decided without looking stays as it was."""
    if record["views"] == 0 or _was_given_up(record):
        return record["verdict"], tuple(record["reasons"])
    defects = [
        Defect(d["label"], d["score"], tuple(d["xyxy"]), d["votes"]) for d in record["defects"]
    ]
    decision = book.decide(defects, record["views"], part_size(dict(record)))
    return decision.verdict.value, decision.reasons


def _was_given_up(record: Mapping[str, Any]) -> bool:
    """Return whether a part was UNSURE for another reason than what was found on it."""
    labels = {d["label"] for d in record["defects"]}
    return record["verdict"] == "UNSURE" and not any(
        reason.split(" ", 1)[0] in labels for reason in record["reasons"]
    )
