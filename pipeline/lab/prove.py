"""Puts a bundle through the parity gate, and keeps the report as a file of the bundle."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pipeline import plugins
from pipeline.bundle import Bundle, Manifest, Proof, sha256_of, weights_of
from pipeline.detector import Detector, open_detector
from pipeline.errors import BundleError, ConfigError, ModelError
from pipeline.lab import pictures
from pipeline.lab.datasets import Dataset
from pipeline.lab.evaluate import LEAST_SCORE, check_labels
from pipeline.lab.parity import compare
from pipeline.lab.versions import versions
from pipeline.proof import REPORT, Checked, Report, Run, Waiver
from pipeline.sealing import rewritten

REFERENCE_RUNTIMES = ("onnx", "openvino", "tensorrt")
DRAWN = 32
"""Boards that are drawn where no data set is named."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class RuntimeChoice:
    """A runtime and how it is set; what is compared holds for this setting."""

    kind: str
    options: Any


def frozen_set(
    bundle: Bundle, dataset: Dataset | None = None, good: Path | None = None
) -> pictures.FrozenSet:
    """Return what a bundle is compared on: a data set's val and test, good pictures, and probes.

    Without a data set and good pictures, DRAWN boards take their place.

    Raises:
        ConfigError: data set and bundle do not fit, or there are no pictures.
    """
    sets: dict[str, tuple[pictures.Sample, ...]] = {}
    if dataset is not None:
        check_labels(bundle, dataset)
        for part in ("val", "test"):
            if part in dataset.parts:
                sets[f"{dataset.name}/{part}"] = pictures.labelled(dataset, part)
    if good is not None:
        sets[good.name] = pictures.good(good)
    if not sets:
        drawn = pictures.drawn(bundle.manifest.labels, DRAWN, pairs=bundle.manifest.input.template)
        sets["drawn"] = drawn
    judged = tuple(sample for samples in sets.values() for sample in samples)
    size = bundle.manifest.input
    probes = pictures.probes(judged, (size.height, size.width))
    counts = {name: len(samples) for name, samples in sets.items()} | {"probes": len(probes)}
    return pictures.FrozenSet((*judged, *probes), counts)


def prove(
    bundle: Bundle,
    frozen: pictures.FrozenSet,
    runtimes: Sequence[RuntimeChoice] = (),
    progress: Progress = lambda done, total: None,
) -> Report:
    """Compare every artefact, on every runtime that is here and may run it, with the reference.

    Args:
        runtimes: settings beside each runtime's own defaults.

    Raises:
        BundleError: the bundle holds no fp32 artefact that can be run here.
        ModelError: the reference fails.
    """
    with ExitStack() as stack:
        opened = _Opened(bundle, runtimes, stack)
        reference_name = opened.reference()
        runs = {
            key: (detector, bundle.manifest.artefacts[key[0]].precision)
            for key, detector in opened.detectors.items()
        }
        named = {"\n".join(key): run for key, run in runs.items()}
        found = compare(bundle, runs[reference_name][0], named, frozen.samples, progress)
    for (name, kind), why in opened.broken.items():
        found[f"{name}\n{kind}"] = Run(ok=False, failures=(why,))
    return _report(bundle, frozen, reference_name, found, opened.skipped)


def with_earlier(bundle: Bundle, report: Report) -> Report:
    """Add what the bundle's report, if it is about the same pictures, says of other runtimes.

    A waiver stays as long as the same pictures flip.
    """
    try:
        old = bundle.report()
    except BundleError:
        return report
    same = (
        report.contract_sha256 == old.contract_sha256
        and report.pictures["sha256"] == old.pictures.get("sha256")
        and report.reference["sha256"] == old.reference.get("sha256")
    )
    if not same:
        return report
    return _summed(
        report,
        {
            name: _merged(checked, old.artefacts.get(name))
            for name, checked in report.artefacts.items()
        },
    )


def waived(report: Report, by: str, reason: str) -> Report:
    """Record that a person answers for the flips of all runs that are red by flips alone.

    Raises:
        ConfigError: there is nothing that could be waived.
    """
    time = datetime.now(timezone.utc).isoformat(timespec="seconds")
    artefacts, count = {}, 0
    for name, checked in report.artefacts.items():
        waivers = tuple(
            Waiver(run=run, flips=len(found.flips), by=by, reason=reason, time=time)
            for run, found in checked.runs.items()
            if found.flips and not found.failures
        )
        count += len(waivers)
        artefacts[name] = checked.model_copy(update={"waivers": (*checked.waivers, *waivers)})
    if count == 0:
        raise ConfigError("there is nothing to waive: only flips can be, where all else is well")
    return report.model_copy(update={"artefacts": artefacts})


def without_red(manifest: Manifest, report: Report) -> tuple[Manifest, Report]:
    """Take what is red out of a bundle that is about to ship, artefact or runtime, and say so."""
    artefacts, checks = {}, {}
    withdrawn: dict[str, str] = dict(report.withdrawn)
    for name, checked in report.artefacts.items():
        red = _red(name, manifest, report)
        withdrawn |= {f"{name} on {run}": why for run, why in red.items()}
        if not checked.runs:
            withdrawn |= {f"{name} on {kind}": why for kind, why in checked.skipped.items()}
        kept = {run: found for run, found in checked.runs.items() if run not in red}
        gone = {_kind(run) for run in red} - {_kind(run) for run in kept}
        if kept:
            artefact = manifest.artefacts[name]
            left = tuple(r for r in artefact.runtimes if r not in gone)
            artefacts[name] = artefact.model_copy(update={"runtimes": left})
            checks[name] = checked.model_copy(update={"runs": kept})
    shipped = manifest.model_copy(update={"artefacts": artefacts})
    return shipped, _summed(report.model_copy(update={"withdrawn": withdrawn}), checks)


def _red(name: str, manifest: Manifest, report: Report) -> dict[str, str]:
    """Return why an artefact must not decide, by run: for what it is, or for what rechecks it."""
    checked, recheck = report.artefacts[name], manifest.artefacts[name].recheck
    refusals = {run: checked.refusal(run) for run in checked.runs}
    red = {run: why for run, why in refusals.items() if why is not None}
    if recheck is None:
        return red
    # By the kind of runtime: the exact artefact runs in full precision beside one in bf16.
    exact = {_kind(run): why for run, why in _red(recheck.artefact, manifest, report).items()}
    return red | {
        run: f"'{recheck.artefact}', which looks again, must not decide there: {exact[_kind(run)]}"
        for run in checked.runs
        if _kind(run) in exact
    }


def _kind(run: str) -> str:
    """Return the kind of the runtime that names itself so."""
    return run.split("/", maxsplit=1)[0]


def keep(bundle: Bundle, report: Report) -> Bundle:
    """Write the report into its bundle, and its hash into the manifest; open the bundle again."""
    file = bundle.path / REPORT
    file.write_text(_json(report.model_dump(mode="json")), encoding="utf-8")
    proof = Proof(path=file.name, sha256=sha256_of(file))
    return rewrite(bundle, parity=proof)


def rewrite(bundle: Bundle, **changes: Any) -> Bundle:
    """Write a bundle's manifest with changes, drop files that it no longer names, and open it."""
    changed = rewritten(bundle, **changes)
    for path in _model_files(bundle) - _model_files(changed):
        (bundle.path / path).unlink(missing_ok=True)
    return changed


def _model_files(bundle: Bundle) -> set[str]:
    """Return the paths of a bundle's model files; several artefacts may share one."""
    artefacts = bundle.manifest.artefacts.values()
    weights = {weights_of(a) for a in artefacts if a.weights_sha256 is not None}
    return weights | {a.path for a in artefacts}


class _Opened:
    """The detectors of a bundle, by artefact and the runtime's own name."""

    def __init__(self, bundle: Bundle, runtimes: Sequence[RuntimeChoice], stack: ExitStack) -> None:
        self._bundle = bundle
        self.detectors: dict[tuple[str, str], Detector] = {}
        self.skipped: dict[tuple[str, str], str] = {}
        self.broken: dict[tuple[str, str], str] = {}
        for name, artefact in bundle.manifest.artefacts.items():
            for kind in artefact.runtimes:
                extra = [choice.options for choice in runtimes if choice.kind == kind]
                for options in (plugins.load("runtimes", kind).Options(), *extra):
                    self._open(name, kind, options, stack)

    def reference(self) -> tuple[str, str]:
        """Return the first fp32 artefact, on the runtime that is most trusted."""
        for kind in REFERENCE_RUNTIMES:
            for name, run in self.detectors:
                precision = self._bundle.manifest.artefacts[name].precision
                if precision == "fp32" and _kind(run) == kind:
                    return name, run
        why = "; ".join((*self.broken.values(), *self.skipped.values()))
        raise BundleError(
            f"bundle '{self._bundle.manifest.name}': no fp32 artefact runs here to compare with "
            f"({why or 'it holds none'})"
        )

    def _open(self, name: str, kind: str, options: Any, stack: ExitStack) -> None:
        try:
            detector = open_detector(
                self._bundle, kind, options, name, min_score=LEAST_SCORE, unproved=True
            )
        except ConfigError as error:
            self.skipped[name, kind] = str(error)
        except (BundleError, ModelError) as error:
            self.broken[name, kind] = str(error)
        else:
            stack.callback(detector.close)
            self.detectors.setdefault((name, detector.runtime.name), detector)


def _report(
    bundle: Bundle,
    frozen: pictures.FrozenSet,
    reference: tuple[str, str],
    found: Mapping[str, Run],
    skipped: Mapping[tuple[str, str], str],
) -> Report:
    manifest = bundle.manifest
    artefacts = {
        name: Checked(
            sha256=artefact.sha256,
            weights_sha256=artefact.weights_sha256,
            recheck=bundle.rechecked(artefact),
            precision=artefact.precision,
            bytes=bundle.size_of(artefact),
            runs={key.split("\n")[1]: r for key, r in found.items() if key.split("\n")[0] == name},
            skipped={kind: why for (about, kind), why in skipped.items() if about == name},
        )
        for name, artefact in manifest.artefacts.items()
    }
    empty = Report(
        ok=False,
        flips=0,
        artefacts={},
        reference={
            "artefact": reference[0],
            "run": reference[1],
            "sha256": manifest.artefacts[reference[0]].sha256,
        },
        pictures=frozen.as_dict(),
        contract_sha256=manifest.contract_sha256,
        made_with=_made_with(),
    )
    return _summed(empty, artefacts)


def _summed(report: Report, artefacts: dict[str, Checked]) -> Report:
    runs = [run for checked in artefacts.values() for run in checked.runs.values()]
    page = report.model_dump() | {
        "artefacts": {name: checked.model_dump() for name, checked in artefacts.items()},
        "ok": bool(runs) and all(run.ok for run in runs),
        "flips": sum(len(run.flips) for run in runs),
    }
    return Report.model_validate(page)


def _merged(new: Checked, old: Checked | None) -> Checked:
    if old is None or _what(new) != _what(old):
        return new
    waivers = tuple(
        waiver
        for waiver in old.waivers
        if waiver.run not in new.runs
        or set(new.runs[waiver.run].flips) == set(old.runs[waiver.run].flips)
    )
    return new.model_copy(update={"runs": old.runs | new.runs, "waivers": waivers})


def _what(checked: Checked) -> tuple[object, ...]:
    return checked.sha256, checked.weights_sha256, checked.recheck


def _made_with() -> dict[str, Any]:
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        **versions(),
    }


def _json(page: Any) -> str:
    return json.dumps(page, indent=1) + "\n"
