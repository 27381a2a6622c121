"""No wrong export passes: each mutant of the shipped model is red, each sound run of it is green."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pipeline import plugins
from pipeline.bundle import Bundle, open_bundle, sha256_of
from pipeline.detector import Detector, open_detector
from pipeline.lab import parity, pictures, prove, quantize
from pipeline.lab.evaluate import LEAST_SCORE
from pipeline.lab.export import tensors_of
from pipeline.proof import REPORT, Flip, Run
from pipeline.shipped import shipped
from pipeline.types import Detections
from tests import mutants, tiny

BOARDS, PROBES, CALIBRATION = 8, 3, 6
Made = dict[str, Run]


@pytest.fixture(scope="module")
def boards() -> Bundle:
    return open_bundle(shipped("models/boards-n"))


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture(scope="module")
def compared(
    boards: Bundle, stack: ExitStack, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Made, pictures.FrozenSet]:
    """Return the runs of the shipped model, of its mutants, and the set they were compared on."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("mutants")
    artefact = boards.manifest.artefacts["fp32"]
    source = boards.checked_file(artefact)
    model = onnx.load(source)
    drawn = pictures.drawn(boards.manifest.labels, BOARDS)
    size = (boards.manifest.input.height, boards.manifest.input.width)
    shown = [sample.load()[0] for sample in drawn[:CALIBRATION]]
    quantised = onnx.load(
        quantize.int8_for_processors(source, folder / "int8.onnx", list(tensors_of(shown, size)))
    )

    def detector(name: str, made: Any) -> Detector:
        home = folder / name
        home.mkdir()
        file = tiny.save(made, home / artefact.path)
        named = artefact.model_copy(update={"sha256": sha256_of(file)})
        manifest = boards.manifest.model_copy(update={"artefacts": {name: named}})
        opened = open_detector(
            Bundle(home, manifest, ""),
            "onnx",
            plugins.load("runtimes", "onnx").Options(),
            min_score=LEAST_SCORE,
            unproved=True,
        )
        stack.callback(opened.close)
        return opened

    reference = detector("reference", model)
    classes = len(boards.manifest.labels)
    runs: dict[str, tuple[parity.Looks, str]] = {
        "sound": (detector("sound", model), "fp32"),
        "sound int8": (detector("sound-int8", quantised), "int8"),
        "colours": (detector("colours", mutants.swapped_colours(model)), "fp32"),
        "int8 colours": (detector("int8-colours", mutants.swapped_colours(model)), "int8"),
        "scale": (detector("scale", mutants.wrong_scale(model)), "fp32"),
        "scales": (detector("scales", mutants.broken_scales(quantised)), "int8"),
        "doubles": (detector("doubles", mutants.without_suppression(model)), "fp32"),
        "int8 doubles": (detector("int8-doubles", mutants.without_suppression(model)), "int8"),
        "labels": (detector("labels", mutants.permuted_labels(model, classes)), "fp32"),
        "stretched": (mutants.Stretching(reference), "fp32"),
        "int8 stretched": (mutants.Stretching(reference), "int8"),
    }
    frozen = pictures.FrozenSet((*drawn, *pictures.probes(drawn, size, PROBES)), {})
    return parity.compare(boards, reference, runs, frozen.samples), frozen


def test_a_sound_export_is_green(compared: tuple[Made, pictures.FrozenSet]) -> None:
    run = compared[0]["sound"]
    assert run.ok, run
    assert run.figures["boxes"]["unmatched"]["of"] > 20, "the pictures show too little"


@pytest.mark.parametrize(
    "mutant",
    ["colours", "scale", "scales", "doubles", "labels", "stretched",
     "int8 colours", "int8 doubles", "int8 stretched"],
)  # fmt: skip
def test_a_wrong_export_is_red(mutant: str, compared: tuple[Made, pictures.FrozenSet]) -> None:
    run = compared[0][mutant]
    assert not run.ok
    assert run.failures, "it must be seen in what is found, not by a lucky flip alone"


def test_quantised_scales_are_what_makes_the_broken_one_red(
    compared: tuple[Made, pictures.FrozenSet],
) -> None:
    sound, broken = compared[0]["sound int8"].figures, compared[0]["scales"].figures
    assert sound["tensors"]["median"] < broken["tensors"]["median"] / 3
