"""From picture to detections: letterbox, runtime and decoder, assembled from a bundle."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from pipeline import plugins
from pipeline.bundle import Artefact, Bundle, Threshold
from pipeline.errors import BundleError, ConfigError, ModelError
from pipeline.onnx_graph import check_graph
from pipeline.recheck import Recheck
from pipeline.runtimes import Runtime
from pipeline.types import Box, Detections, Image, Tensor
from pipeline.vision import decode
from pipeline.vision.crop import SLACK_PX, cut_around, window_at
from pipeline.vision.geometry import centred_in
from pipeline.vision.letterbox import Letterbox
from pipeline.vision.template import Template
from pipeline.vision.tiling import merged, tiles_of

MIN_SCORE = 0.05
"""Weaker detections are dropped. Far below any threshold: a vote over views needs the weak ones."""

EDGE_PX = 8.0
"""A part's edges are known to some pixels only: a defect this far outside is still its own."""


class Detector:
    """Finds defects in pictures. Not for two threads at once: it owns one input buffer.

    Attributes:
        labels: class names, in the order of the label numbers.
        artefact: the model file that runs; for records, as is ``runtime.name``.
        runtime: what runs it.
        min_score: weaker detections are dropped, 0..1.
        outputs: what the model gave at the last call, before it was decoded.
        rechecks: how many pictures a more exact model was asked to look at again.
    """

    def __init__(
        self,
        labels: Sequence[str],
        decoder: decode.Decoder,
        runtime: Runtime,
        artefact: Artefact,
        *,
        min_score: float = MIN_SCORE,
        enlarge: bool = False,
        overlap: int | None = None,
        template: Template | None = None,
        recheck: Recheck | None = None,
    ) -> None:
        """Assemble a detector.

        Args:
            labels: class names.
            decoder: reads the runtime's outputs.
            runtime: takes uint8 (1, H, W, 3); the detector closes it.
            artefact: the model file that the runtime runs.
            min_score: weaker detections are dropped, 0..1.
            enlarge: a picture smaller than the input fills it; else it keeps its scale.
            overlap: a part that is larger than the input is looked at in tiles of the input's size
                that share so many pixels; None scales it down.
            template: what ``detect_at`` lays parts beside, for a model that compares.
            recheck: looks again where a score lies near a threshold; the detector closes it.

        Raises:
            ConfigError: the overlap is not below half of the input.
        """
        self.labels = tuple(labels)
        self.artefact = artefact
        self.runtime = runtime
        self.outputs: tuple[Tensor, ...] = ()
        self._decoder = decoder
        self.min_score = min_score
        self._box = Letterbox(*runtime.input_shape[1:3])
        self._place = self._box.fit if enlarge else self._box.window
        self._overlap = overlap
        self._template = template
        self._recheck = recheck
        self.rechecks = 0
        if overlap is not None and 2 * overlap >= min(runtime.input_shape[1:3]):
            raise ConfigError(
                f"model.tiling.overlap_px: {overlap} is not below half of the model's input of "
                f"{runtime.input_shape[2]} x {runtime.input_shape[1]} pixels; lower it"
            )

    def detect(self, image: Image) -> Detections:
        """Return the defects that a picture shows, in pixels of the picture.

        Args:
            image: uint8, (H, W, 3) BGR or (H, W); for a model that compares, a pair
                (``vision.template``).

        Raises:
            ModelError: it is no picture, or the model failed or gave an impossible answer.
        """
        placement = self._place(image)
        found = self._infer()
        if len(found) == 0:  # as on most parts
            return found
        return Detections(placement.back(found.xyxy), found.score, found.label)

    def detect_at(self, image: Image, box: Box) -> Detections:
        """Return the defects of one part of a frame, in pixels of the frame.

        The model sees a window of its input's size around the part, or tiles of that size; one that
        compares sees the part beside its template. What has its centre further outside the part
        than EDGE_PX is dropped: it belongs to a neighbour.

        Args:
            image: the frame, uint8, (H, W, 3) BGR or (H, W).
            box: the part, pixels of the frame.

        Raises:
            ModelError: the box lies outside the frame, or as ``detect``.
            ViewError: the part does not lie whole in the frame, or is not that of the template.
        """
        if self._template is None:
            found = self._detect_around(image, box)
        else:
            view, (x, y) = cut_around(image, box, *self._template.size)
            pair = self._template.beside(view)
            found = self._detect_around(pair, box.shifted(-x, -y)).shifted(x, y)
        if len(found) == 0:
            return found
        grown = Box(box.x0 - EDGE_PX, box.y0 - EDGE_PX, box.x1 + EDGE_PX, box.y1 + EDGE_PX)
        return found[centred_in(found.xyxy, grown)]

    def _detect_around(self, image: Image, box: Box) -> Detections:
        height, width = self._box.tensor.shape[1:3]
        is_larger = box.width > width + SLACK_PX or box.height > height + SLACK_PX
        if is_larger and self._overlap is not None:
            return self._detect_in_tiles(image, box, self._overlap)
        view, (x, y) = window_at(image, box, height, width)
        if view.size == 0:
            raise _outside(box, image)
        return self.detect(view).shifted(x, y)

    def _detect_in_tiles(self, image: Image, box: Box, overlap: int) -> Detections:
        height, width = self._box.tensor.shape[1:3]
        tiles = tiles_of(box, (image.shape[0], image.shape[1]), (height, width), overlap)
        if not tiles:
            raise _outside(box, image)
        found = [
            self.detect(image[int(t.y0) : int(t.y1), int(t.x0) : int(t.x1)]).shifted(t.x0, t.y0)
            for t in tiles
        ]
        return merged(found, tiles)

    def check(self) -> None:
        """Run each model once on grey: it warms up, and its outputs must fit decoder and labels.

        Raises:
            BundleError: they do not fit.
            ModelError: the runtime failed.
        """
        self._check(self.runtime)
        if self._recheck is not None:
            self._check(self._recheck.runtime)

    def _check(self, runtime: Runtime) -> None:
        outputs = runtime.infer(self._box.tensor)
        try:
            self._decoder.read(outputs, self.min_score)
        except ModelError as error:
            raise BundleError(f"the model does not fit its manifest: {error}") from error
        classes = self._decoder.classes(outputs)
        if classes not in (None, len(self.labels)):
            raise BundleError(
                f"the model knows {classes} classes, its manifest names {len(self.labels)}: "
                f"{', '.join(self.labels)}"
            )

    def close(self) -> None:
        """Free what is loaded; may be called twice."""
        self.runtime.close()
        if self._recheck is not None:
            self._recheck.runtime.close()

    def _infer(self) -> Detections:
        found = self._ask(self.runtime)
        if self._recheck is not None and self._recheck.asks(found):
            self.rechecks += 1
            found = self._ask(self._recheck.runtime)
        return found

    def _ask(self, runtime: Runtime) -> Detections:
        self.outputs = runtime.infer(self._box.tensor)
        found = self._decoder.read(self.outputs, self.min_score)
        if len(found) and not (found.label.min() >= 0 and found.label.max() < len(self.labels)):
            raise ModelError(
                f"the model found the classes {sorted(set(found.label.tolist()))}, its manifest "
                f"names {len(self.labels)}; export the bundle again"
            )
        return found


def _outside(box: Box, image: Image) -> ModelError:
    return ModelError(f"the part at {box.as_list()} lies outside the frame {image.shape}")


def open_detector(
    bundle: Bundle,
    runtime_kind: str,
    options: Any,
    artefact: str | None = None,
    *,
    min_score: float = MIN_SCORE,
    unproved: bool = False,
    overlap: int | None = None,
    template: Template | None = None,
    bands: Mapping[str, Threshold] | None = None,
    one_fails: bool = True,
    warm: bool = True,
) -> Detector:
    """Assemble the detector of a bundle, check that its parts fit, and warm it up.

    Args:
        bundle: the opened bundle.
        runtime_kind: name of the runtime plugin.
        options: that plugin's Options.
        artefact: name of one of the bundle's artefacts; None takes the first that fits.
        min_score: weaker detections are dropped, 0..1.
        unproved: run it without a green parity report; for the lab, never for a line.
        overlap: of the tiles in which larger parts are looked at, pixels; None scales them down.
        template: what parts are laid beside; for a model that compares, and for no other.
        bands: the thresholds near which a more exact artefact looks again, where the manifest
            names one; None takes the bundle's own.
        one_fails: see ``Recheck``.
        warm: run it once on grey; not needed where golden pictures follow. What rechecks is run in
            any case.

    Raises:
        BundleError: the bundle, its file and its manifest do not fit each other, or its parity
            report does not let this artefact run here.
        ConfigError: there is no such runtime, its package is not installed, it does not compute
            here in the precision that is asked for, or the overlap is not below half of the input.
        ModelError: the model cannot be loaded or fails.
    """
    manifest = bundle.manifest
    decoder = decode.decoder(manifest.decoder)
    chosen = bundle.artefact_for(runtime_kind, artefact)
    with ExitStack() as opened:
        runtime = _load(bundle, chosen, runtime_kind, options, opened)
        recheck = None
        if chosen.recheck is not None:
            exact = manifest.artefacts[chosen.recheck.artefact]
            recheck = Recheck(
                _load(bundle, exact, runtime_kind, options.in_full(), opened),
                manifest.labels,
                bands or manifest.thresholds,
                chosen.recheck.odds,
                one_fails=one_fails,
            )
        detector = Detector(
            manifest.labels,
            decoder,
            runtime,
            chosen,
            min_score=min_score,
            enlarge=manifest.input.enlarge,
            overlap=overlap,
            template=template,
            recheck=recheck,
        )
        if warm or recheck is not None:  # golden pictures may ask the quick model alone
            try:
                detector.check()
            except (BundleError, ModelError) as error:
                raise _about(bundle, chosen, error) from error
        if not unproved:
            bundle.require_proof(chosen, runtime.name)
        opened.pop_all()
    return detector


def _load(
    bundle: Bundle, artefact: Artefact, kind: str, options: Any, opened: ExitStack
) -> Runtime:
    """Load an artefact into a runtime that ``opened`` closes."""
    file = bundle.checked_file(artefact)
    if file.suffix == ".onnx":
        check_graph(file)
    meant = options.meant_for(artefact.precision)
    runtime: Runtime = plugins.load("runtimes", kind).create(meant, file)
    opened.callback(runtime.close)
    try:
        _check_input(bundle, runtime)
    except BundleError as error:
        raise _about(bundle, artefact, error) from error
    return runtime


def _about(
    bundle: Bundle, artefact: Artefact, error: BundleError | ModelError
) -> BundleError | ModelError:
    return type(error)(f"bundle '{bundle.manifest.name}', {artefact.path}: {error}")


def _check_input(bundle: Bundle, runtime: Runtime) -> None:
    asked = (1, bundle.manifest.input.height, bundle.manifest.input.width, 3)
    if tuple(runtime.input_shape) != asked:
        raise BundleError(f"its input is {tuple(runtime.input_shape)}, the manifest says {asked}")
