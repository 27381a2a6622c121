"""The parity report of a bundle: which artefact was proved on which runtime, and what it may do."""

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

REPORT = "parity.json"
MAX_REPORT_BYTES = 16 << 20


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Flip(_Strict):
    """A picture that gets another verdict than from the reference."""

    picture: str
    reference: str
    got: str


class Run(_Strict):
    """What one artefact gave on one runtime, beside the reference.

    Attributes:
        ok: no flip, nothing else wrong.
        flips: pictures whose verdict differs.
        failures: what else is beyond its limit, a line each.
        figures: what was measured; docs/parity.md names the keys.
    """

    ok: bool
    flips: tuple[Flip, ...] = ()
    failures: tuple[str, ...] = ()
    figures: dict[str, Any] = {}

    @model_validator(mode="after")
    def _ok_is_earned(self) -> Self:
        if self.ok is bool(self.flips or self.failures):
            raise ValueError("'ok' contradicts the flips and failures beside it")
        return self


class Waiver(_Strict):
    """A person takes the responsibility for the flips of one run; nothing else can be waived."""

    run: str
    flips: int = Field(gt=0)
    by: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    time: str


class Rechecked(_Strict):
    """By what file doubtful answers were looked at again; see ``pipeline.recheck``."""

    sha256: str
    weights_sha256: str | None = None
    odds: float


class Checked(_Strict):
    """One artefact; the hashes say which bytes were looked at.

    Attributes:
        recheck: what looked again where its scores lay near a threshold, or None.
        runs: by the runtime's own name, which says device and precision.
        skipped: runtimes that it is meant for and that are not on the machine of the check, why.
    """

    sha256: str
    weights_sha256: str | None = None
    recheck: Rechecked | None = None
    precision: str
    bytes: int
    runs: dict[str, Run] = {}
    skipped: dict[str, str] = {}
    waivers: tuple[Waiver, ...] = ()

    def refusal(self, run: str) -> str | None:
        """Return why this artefact must not decide anything on a runtime, or None if it may."""
        if run not in self.runs:
            known = ", ".join(self.runs) or "nothing"
            return f"it was not compared on '{run}', only on: {known}"
        found = self.runs[run]
        if found.ok:
            return None
        if found.failures:
            return f"on '{run}' it differs from the reference: {found.failures[0]}"
        if any(w.run == run and w.flips == len(found.flips) for w in self.waivers):
            return None
        return f"on '{run}' it flips {len(found.flips)} verdicts, e.g. of {found.flips[0].picture}"


class Report(_Strict):
    """The whole of ``parity.json``.

    Attributes:
        ok: every run of every artefact is.
        flips: verdicts that differ, over all runs.
        artefacts: by their name in the manifest.
        reference: ``artefact`` and ``run`` that the others were compared with.
        pictures: ``count``, ``judged``, ``sha256``, ``sets``: the frozen set.
        contract_sha256: of labels, decoder, input and thresholds; see ``contract_sha256``.
        withdrawn: what was made and does not ship, and why.
        made_with: packages and their versions, the processor, the time.
    """

    schema_version: Literal[1] = 1
    ok: bool
    flips: int
    artefacts: dict[str, Checked]
    reference: dict[str, str]
    pictures: dict[str, Any]
    contract_sha256: str
    withdrawn: dict[str, str] = {}
    made_with: dict[str, Any] = {}

    @model_validator(mode="after")
    def _sums_are_right(self) -> Self:
        runs = [run for artefact in self.artefacts.values() for run in artefact.runs.values()]
        if self.ok is not (bool(runs) and all(run.ok for run in runs)):
            raise ValueError("'ok' contradicts the runs")
        if self.flips != sum(len(run.flips) for run in runs):
            raise ValueError("'flips' is not the number of flips that are listed")
        return self


def contract_sha256(
    labels: tuple[str, ...],
    decoder: str,
    size: tuple[int, int],
    thresholds: dict[str, tuple[float, float]],
    enlarge: bool = False,
    template: bool = False,
) -> str:
    """Return the hash of what, beside the model file, makes a verdict.

    A threshold that was moved after the comparison makes the report void.
    """
    page: dict[str, Any] = {
        "labels": labels,
        "decoder": decoder,
        "size": size,
        "thresholds": thresholds,
        **({"enlarge": True} if enlarge else {}),
        **({"template": True} if template else {}),
    }
    text = json.dumps(page, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
