"""One way to run one bundle, told in a word: what stands on one side of a comparison."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from pipeline import plugins
from pipeline.bench import pictures
from pipeline.bundle import MANIFEST, SIGNATURE, Artefact, Bundle, open_bundle, sha256_of
from pipeline.detector import MIN_SCORE
from pipeline.errors import BundleError, ConfigError
from pipeline.limits import json_of
from pipeline.proof import REPORT, Checked, Report, Run
from pipeline.runtimes import Runtime
from pipeline.types import Detections, Image, Tensor
from pipeline.vision import decode
from pipeline.vision.letterbox import Letterbox
from pipeline.vision.picture import encode_png
from pipeline.vision.template import Template
from pipeline.workers import cores, shares

JOURNAL, TEMPLATE = "gate.jsonl", "template.png"


@dataclass(frozen=True, slots=True)
class Variant:
    """How a bundle is run.

    Attributes:
        text: as it was given, e.g. ``openvino:precision=bf16``.
        bundle: folder.
        runtime: kind and options.
        settings: of other sections of the station file, e.g. ``parts: {views: 3}``.
    """

    text: str
    bundle: Path
    runtime: Mapping[str, Any]
    settings: Mapping[str, Mapping[str, Any]]

    @property
    def kind(self) -> str:
        return str(self.runtime["kind"])

    @property
    def artefact(self) -> str | None:
        return self.settings.get("model", {}).get("artefact")


@dataclass(frozen=True, slots=True)
class Bare:
    """A bundle's artefact in its bare runtime.

    Where a more exact artefact looks again, that is the station's business: it is not in here.

    Attributes:
        more: as many runtimes as there are further workers, in the throughput mode.
        proved: False if the bundle's parity report does not let it decide in this way.
    """

    bundle: Bundle
    artefact: Artefact
    runtime: Runtime
    more: tuple[Runtime, ...]
    proved: bool

    @property
    def name(self) -> str:
        """What ran; a figure of what no station may run says so wherever it is shown."""
        doubt = "" if self.proved else " (not proved)"
        workers = f" x {1 + len(self.more)}" if self.more else ""
        return f"{self.runtime.name}/{self.artefact.precision}{doubt}{workers}"

    @property
    def template(self) -> Image | None:
        """What the boards are laid beside, uint8 (H, W, 3), if the model compares."""
        return pictures.template(self.side) if self.bundle.manifest.input.template else None

    @property
    def boards(self) -> tuple[Image, ...]:
        """What it is measured with in memory: uint8 (side, side, 3) each, read-only."""
        return pictures.boards(self.side, alike=self.bundle.manifest.input.template)

    def tensor_of(self, image: Image) -> Tensor:
        """Return what the model is given of a picture, in memory of its own."""
        template, box = self.template, Letterbox(*self.runtime.input_shape[1:3])
        box.window(image if template is None else Template(template).beside(image))
        return box.tensor.copy()

    def found(self, image: Image, min_score: float = MIN_SCORE) -> Detections:
        """Return what the model finds in a picture, in pixels of its input."""
        head = decode.decoder(self.bundle.manifest.decoder)
        return head.read(self.runtime.infer(self.tensor_of(image)), min_score)

    def close(self) -> None:
        """Free the model."""
        for runtime in (self.runtime, *self.more):
            runtime.close()

    @property
    def side(self) -> int:
        return self.bundle.manifest.input.height


def read_variant(text: str, bundle: Path) -> Variant:
    """Read ``KIND[:KEY=VALUE,...]``.

    A key is an option of the runtime, ``artefact``, or ``SECTION.KEY`` of the station file. Commas
    within a value are not known; values are read as YAML reads them.

    Raises:
        ConfigError: it is not of this form, or there is no such runtime.
    """
    kind, _, rest = text.partition(":")
    plugins.load("runtimes", kind)
    runtime: dict[str, Any] = {"kind": kind}
    settings: dict[str, dict[str, Any]] = {}
    for pair in filter(None, rest.split(",")):
        key, given, value = pair.partition("=")
        if not given:
            raise ConfigError(f"'{text}': '{pair}' is not KEY=VALUE, e.g. onnx:threads=1")
        section, dot, name = key.rpartition(".")
        if key == "artefact":
            section, dot, name = "model", ".", key
        place = settings.setdefault(section, {}) if dot else runtime
        place[name] = yaml.safe_load(value)
    return Variant(text, bundle, runtime, settings)


def open_bare(variant: Variant) -> Bare:
    """Load the artefact that a variant names into its runtime, with nothing around it.

    Raises:
        LineguardError: the bundle, the options or the runtime do not allow it.
    """
    bundle = open_bundle(variant.bundle)
    artefact = bundle.artefact_for(variant.kind, variant.artefact)
    plugin = plugins.load("runtimes", variant.kind)
    given = {k: v for k, v in variant.runtime.items() if k != "kind"}
    try:
        options = plugin.Options.model_validate_json(json.dumps(given))
        options = options.meant_for(artefact.precision)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"'{variant.text}': {where}: {first['msg']}") from error
    first, *more = _of_workers(variant, options)
    file = bundle.checked_file(artefact)
    runtime = plugin.create(first, file)
    try:
        bundle.require_proof(artefact, runtime.name)
        proved = True
    except BundleError:
        proved = False
    others = tuple(plugin.create(settings, file) for settings in more)
    return Bare(bundle, artefact, runtime, others, proved)


def _of_workers(variant: Variant, options: Any) -> list[Any]:
    """Return the runtime's options for each worker, as the station shares out the cores."""
    model = variant.settings.get("model", {})
    count = (model.get("workers") or cores()) if model.get("mode") == "throughput" else 1
    if count == 1 or getattr(options, "threads", None) != 0:
        return [options] * count
    return [options.model_copy(update={"threads": n}) for n in shares(count, cores())]


def measurable(bare: Bare, scratch: Path) -> Path:
    """Return a bundle that a station loads: its own, or a copy to be timed that claims the proof.

    The copy has no golden pictures, lies in a folder that is deleted after the measurement, and
    moves nothing. So the speed of an artefact is known before anybody spends hours on its parity.
    """
    if bare.proved:
        return bare.bundle.path
    copy = scratch / f"unproved-{bare.bundle.manifest.name}-{bare.runtime.name.replace('/', '-')}"
    if copy.exists():
        return copy
    shutil.copytree(bare.bundle.path, copy)
    (copy / SIGNATURE).unlink(missing_ok=True)
    report = copy / REPORT
    report.write_text(_claim(bare).model_dump_json(), encoding="utf-8")
    page = json_of((copy / MANIFEST).read_bytes())
    page["parity"] = {"path": REPORT, "sha256": sha256_of(report)}
    page["golden"] = []
    page["files"] = None
    (copy / MANIFEST).write_text(json.dumps(page), encoding="utf-8")
    return copy


def _claim(bare: Bare) -> Report:
    artefact, bundle = bare.artefact, bare.bundle
    checked = Checked(
        sha256=artefact.sha256,
        weights_sha256=artefact.weights_sha256,
        recheck=bundle.rechecked(artefact),
        precision=artefact.precision,
        bytes=bundle.size_of(artefact),
        runs={bare.runtime.name: Run(ok=True)},
    )
    return Report(
        ok=True,
        flips=0,
        artefacts={bundle.name_of(artefact): checked},
        reference={"artefact": bundle.name_of(artefact), "run": bare.runtime.name},
        pictures={"count": 0},
        contract_sha256=bundle.manifest.contract_sha256,
        made_with={"for": "lineguard bench; not compared"},
    )


def scripted_twin(bare: Bare, images: Sequence[Image], scratch: Path) -> Variant:
    """Return a bundle whose model costs nothing and finds what this one found in the pictures."""
    manifest = bare.bundle.manifest
    script = []
    for found in map(bare.found, images):
        rows = np.column_stack([found.xyxy, found.score, found.label])
        script.append(rows.round(4).tolist())
    folder = scratch / "scripted"
    folder.mkdir()
    file = folder / "script"
    file.write_bytes(b"its answers stand with the runtime")
    artefact = {"path": file.name, "sha256": sha256_of(file), "runtimes": ["scripted"]}
    page = manifest.model_dump(mode="json") | {
        "decoder": "yolo-e2e",
        "artefacts": {"script": {**artefact, "precision": "fp32"}},
        "golden": [],
        "parity": None,
        "files": None,
    }
    (folder / MANIFEST).write_text(json.dumps(page), encoding="utf-8")
    size = {"height": manifest.input.height, "width": manifest.input.width}
    runtime = {"kind": "scripted", "after": "cycle", "script": script, **size}
    return Variant("scripted", folder, runtime, {})


def recipe_that_rejects(share: float, bare: Bare, images: Sequence[Image]) -> dict[str, Any]:
    """Return a recipe whose one limit lets this share of the pictures be rejected.

    How often a line rejects decides how many pictures are kept, and what that costs: so it is set,
    and not left to how well a model fits what is drawn here.
    """
    strongest = []
    for found in map(bare.found, images):
        strongest.append(float(found.score.max()) if len(found) else 0.0)
    limit = round(float(np.clip(np.quantile(strongest, 1 - share), 2 * MIN_SCORE, 1.0)), 4)
    rule = {"fail": limit, "unsure": limit}
    return {"name": "bench", "defects": dict.fromkeys(bare.bundle.manifest.labels, rule)}


def station_file(
    variant: Variant, bare: Bare, scratch: Path, broker_port: int | None, **sections: Any
) -> Path:
    """Write the file of a whole station: rules, ledger, pictures of rejects, gate, MQTT.

    Args:
        scratch: a folder for this station alone, in one that is deleted afterwards.
        broker_port: on this machine, or None to publish nothing.
        sections: that replace those written here; the variant's settings replace keys of both.
    """
    page: dict[str, Any] = {
        "station": {"name": scratch.name},  # its name at the broker: no two may have the same
        "camera": {"kind": "synthetic", "boards": 1},
        "trigger": {"kind": "every_frame"},
        "model": {
            "bundle": str(measurable(bare, scratch.parent).resolve()),
            "runtime": dict(variant.runtime),
        },
        "recipe": {"name": "bench"},
        "store": {"path": str(scratch / "store"), "pictures": "rejects"},
        "outputs": [{"kind": "journal", "path": str(scratch / JOURNAL)}],
        "publishers": [{"kind": "mqtt", "port": broker_port}] if broker_port else [],
    }
    if bare.template is not None:
        data = encode_png(bare.template)
        (scratch / TEMPLATE).write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        page["model"]["template"] = {"picture": TEMPLATE, "sha256": sha256}
    page |= sections
    for section, values in variant.settings.items():
        page[section] = {**page.get(section, {}), **values}
    file = scratch / "station.yaml"
    # JSON is YAML, and knows no aliases, which a station file may not have.
    file.write_text(json.dumps(page, indent=1), encoding="utf-8")
    return file
