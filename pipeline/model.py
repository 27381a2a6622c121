"""From the bundle that a station file names to a model that may decide: checked, tried, asked."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from pipeline import selftest, trial
from pipeline.bundle import Bundle, open_bundle
from pipeline.config import StationConfig
from pipeline.detector import Detector, open_detector
from pipeline.errors import ConfigError, ModelError
from pipeline.limits import read_bounded
from pipeline.rules import Rulebook
from pipeline.selftest import Question
from pipeline.signing import Trust, read_trust
from pipeline.vision.picture import decode_picture
from pipeline.vision.template import Template
from pipeline.workers import Workers, cores, shares

MAX_TEMPLATE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Model:
    """A bundle, and detectors that run one of its artefacts and have passed the self-test.

    Attributes:
        detectors: one, or in the throughput mode one per worker.
        workers: these detectors at work, in the throughput mode; else None.
    """

    bundle: Bundle
    detectors: tuple[Detector, ...]
    rulebook: Rulebook
    questions: tuple[Question, ...]
    workers: Workers[Detector] | None = None

    @property
    def detector(self) -> Detector:
        """The only detector, or the first."""
        return self.detectors[0]

    @property
    def rechecks(self) -> int:
        """How many pictures a more exact artefact was asked to look at again; see ``Detector``."""
        return sum(detector.rechecks for detector in self.detectors)

    def self_test(self) -> None:
        """Ask the running model for the golden pictures; in the thread that owns the detector.

        Raises:
            ModelError: an answer is not as it should be.
        """
        if self.workers is None:
            selftest.ask(self.detector, self.questions)
        else:
            self.workers.each(lambda detector: selftest.ask(detector, self.questions))


def open_model(config: StationConfig) -> Model:
    """Open the bundle and load the model that the station file names.

    Nothing of it runs here before its signature, every hash, its graph, a first load in a child
    process and the golden pictures were well.

    Raises:
        LineguardError: one of these was not.
    """
    section = config.document.model
    bundle = open_bundle(config.bundle_path, _trust(config))
    bundle.check()
    rulebook = Rulebook(config.document.recipe, bundle.manifest.thresholds)
    kind, (options, *more) = config.runtime.kind, _options_of_workers(config)
    artefact = bundle.name_of(bundle.artefact_for(kind, section.artefact))
    bounds = trial.Bounds(section.trial.memory_mb, section.trial.seconds)
    least = rulebook.least_detection
    template = _template(config, bundle)
    questions = selftest.questions_of(bundle, artefact)

    def opened(settings: Any) -> Detector:
        detector = open_detector(
            bundle,
            kind,
            settings,
            artefact=artefact,
            min_score=least,
            overlap=None if section.tiling is None else section.tiling.overlap_px,
            template=template,
            bands={label: rulebook.band(label) for label in bundle.manifest.labels},
            one_fails=rulebook.one_fails,
            warm=not questions,
        )
        try:
            selftest.ask(detector, questions)
        except ModelError:
            detector.close()
            raise
        return detector

    order = trial.order_for(bundle, kind, options, artefact, least, bounds)
    with trial.tried_once(order, trial.receipts()):
        detectors = tuple(opened(settings) for settings in (options, *more))
    workers = None if section.mode == "latency" else Workers(detectors)
    return Model(bundle, detectors, rulebook, questions, workers)


def opening(config: StationConfig) -> Future[Model]:
    """Begin to open the model in a thread of its own; the rest of a program loads meanwhile."""
    opened: Future[Model] = Future()

    def work() -> None:
        try:
            opened.set_result(open_model(config))
        except Exception as error:  # noqa: BLE001 - the top of a thread: who asks is told
            opened.set_exception(error)

    threading.Thread(target=work, name="model", daemon=True).start()
    return opened


def _template(config: StationConfig, bundle: Bundle) -> Template | None:
    """Read the template, if the bundle's model compares.

    Raises:
        ConfigError: one is named and not wanted, or the reverse, or it is not the picture it was.
    """
    section, file = config.document.model.template, config.template_path
    if bundle.manifest.input.template is not (section is not None):
        raise ConfigError(
            f"{config.file}: model.template: bundle '{bundle.manifest.name}' "
            + (
                "compares each part with one that has no defect; cut one out with: lineguard "
                "template"
                if section is None
                else "does not compare; take this section out"
            )
        )
    if section is None or file is None:
        return None
    try:
        data = read_bounded(file, MAX_TEMPLATE_BYTES)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; model.template names this picture") from error
    except ValueError as error:
        raise ConfigError(f"{file}: {error}; this is no template") from error
    if (sha256 := hashlib.sha256(data).hexdigest()) != section.sha256:
        raise ConfigError(
            f"{file}: this is not the picture that {config.file.name} names: its sha256 is "
            f"{sha256}, model.template.sha256 says {section.sha256}"
        )
    try:
        return Template(decode_picture(data, str(file)))
    except ModelError as error:
        raise ConfigError(f"{file}: {error}") from error


def _options_of_workers(config: StationConfig) -> list[Any]:
    """Return the runtime's options for each worker: threads that sum to the cores.

    Where the station file states the threads of one inference, that holds.
    """
    section, options = config.document.model, config.runtime.options
    count = 1 if section.mode == "latency" else section.workers or cores()
    if count == 1 or getattr(options, "threads", None) != 0:
        return [options] * count
    return [options.model_copy(update={"threads": n}) for n in shares(count, cores())]


def _trust(config: StationConfig) -> Trust | None:
    section = config.document.model.trust
    return None if section is None else read_trust(config.trusted_keys, section.unsigned)
