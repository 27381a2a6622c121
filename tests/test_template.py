"""A part beside its template: where it lies, how it is lit, and what is no such part at all."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from pipeline import plugins, teaching
from pipeline.assembly import build
from pipeline.bundle import open_bundle
from pipeline.cli.main import app
from pipeline.clock import SystemClock
from pipeline.config import load
from pipeline.detector import Detector, open_detector
from pipeline.errors import ConfigError, ModelError, ViewError
from pipeline.model import open_model
from pipeline.shipped import shipped
from pipeline.store import read_records
from pipeline.synth import optics
from pipeline.synth.board import draw_board
from pipeline.synth.defects import add_defect
from pipeline.synth.healing import healed
from pipeline.synth.line import BeltScene, BeltSetup
from pipeline.synth.optics import DEMO, photograph
from pipeline.synth.retake import photograph_again, retaken
from pipeline.trace import rerun, stored_picture
from pipeline.types import Box, Image, Verdict
from pipeline.vision.template import REACH_PX, Template
from tests import tiny

SIDE = 240


def board(seed: int = 3) -> Any:
    """Return the copper of a drawn board, bool (SIDE, SIDE)."""
    return draw_board(np.random.default_rng(seed), SIDE).copper


def black_on_white(copper: Any) -> Image:
    return np.where(copper, 0, 255).astype(np.uint8)


def moved(image: Image, dx: int, dy: int) -> Image:
    """Return the picture shifted, its edge going on."""
    room = cv2.copyMakeBorder(image, 30, 30, 30, 30, cv2.BORDER_REPLICATE)
    return np.asarray(room[30 - dy : 30 - dy + SIDE, 30 - dx : 30 - dx + SIDE], np.uint8)


@pytest.mark.parametrize("by", [(0, 0), (7, -5), (-23, 24), (24, 24)])
def test_a_part_that_lies_elsewhere_has_no_difference(by: tuple[int, int]) -> None:
    image = black_on_white(board())
    pair = Template(image).beside(moved(image, *by))
    inner = pair[30:-30, 30:-30]
    assert (inner[..., 0] == moved(image, *by)[30:-30, 30:-30]).all()
    assert inner[..., 2].max() <= 20, "only the light is evened out"


@pytest.mark.parametrize(("turn", "stretch"), [(1.0, 1.0), (-1.5, 1.0), (0.5, 1.02)])
def test_a_part_that_lies_a_little_askew_has_no_difference(turn: float, stretch: float) -> None:
    image = cv2.GaussianBlur(black_on_white(board()), (0, 0), 1.5)
    centre = (SIDE / 2 + 3, SIDE / 2 - 5)
    askew = cv2.warpAffine(
        image,
        cv2.getRotationMatrix2D(centre, turn, stretch),
        (SIDE, SIDE),
        borderMode=cv2.BORDER_REPLICATE,
    )
    pair = Template(image).beside(askew)[30:-30, 30:-30]
    as_it_was = cv2.absdiff(image, askew)[30:-30, 30:-30]
    assert pair[..., 2].mean() < 0.2 * as_it_was.mean()
    assert np.mean(as_it_was > 100) > 0.003
    assert np.mean(pair[..., 2] > 100) < 0.0003


def test_a_part_further_away_than_the_reach_is_no_part_of_this_kind() -> None:
    image = black_on_white(board())
    with pytest.raises(ViewError, match="does not show what the template shows"):
        Template(image).beside(np.roll(image, SIDE // 2, axis=1))


@pytest.mark.parametrize("seed", range(4, 9))
def test_another_board_is_no_part_of_this_kind(seed: int) -> None:
    with pytest.raises(ViewError, match="another part, turned"):
        Template(black_on_white(board())).beside(black_on_white(board(seed)))


def test_a_turned_part_is_refused() -> None:
    image = black_on_white(board())
    with pytest.raises(ViewError, match="turned"):
        Template(image).beside(np.ascontiguousarray(image[::-1, ::-1]))


def test_a_defect_shows_as_a_difference_and_the_lamp_does_not() -> None:
    copper, rng = board(), np.random.default_rng(5)
    made = add_defect(copper, "copper", rng)
    assert made is not None
    damaged, defect = made
    shaded = photograph(copper, DEMO, rng)
    darker = (photograph(damaged, DEMO, rng) * np.linspace(0.6, 0.9, SIDE)[None, :, None]).astype(
        np.uint8
    )
    difference = Template(shaded).beside(darker)[..., 2]
    x0, y0, x1, y1 = (round(v) for v in defect.xyxy)
    beside_it = np.delete(difference, np.s_[y0:y1], axis=0)
    assert difference[y0:y1, x0:x1].max() > 2 * np.percentile(beside_it, 99)


def test_grey_and_colour_pictures_may_be_compared() -> None:
    image = black_on_white(board())
    colour = np.repeat(image[..., None], 3, axis=2)
    assert (Template(colour).beside(image) == Template(image).beside(colour)).all()


@pytest.mark.parametrize(
    ("template", "picture", "said"),
    [
        ((80, 200), (80, 200), "96 x 96 is the least"),
        ((200, 200), (200, 160), "160 x 200 pixels, the template 200 x 200"),
        ((200, 200), (200, 200, 4), "cannot look at a picture of shape"),
    ],
)
def test_what_cannot_be_compared_is_named(
    template: Sequence[int], picture: Sequence[int], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        Template(np.zeros(template, np.uint8)).beside(np.zeros(picture, np.uint8))


def test_a_board_taken_anew_is_still_the_board() -> None:
    for seed in range(6):
        copper, rng = board(seed), np.random.default_rng(seed)
        again = retaken(copper, rng)
        assert 0 < np.mean(again != copper) < 0.2
        Template(black_on_white(again)).beside(black_on_white(copper))
        Template(photograph_again(copper, DEMO, rng)).beside(photograph(copper, DEMO, rng))


@pytest.mark.parametrize("kind", ["open", "short", "mousebite", "spur", "copper", "pin-hole"])
def test_a_healed_board_is_what_it_was(kind: str) -> None:
    """The defect may leave some pixels of itself, most of them must be as they were."""
    changed, left = 0, 0
    for seed in range(8):
        rng = np.random.default_rng((seed, 7))
        copper = draw_board(rng, 400).copper
        made = add_defect(copper, kind, rng)
        if made is None:
            continue
        damaged, defect = made
        whole = healed(damaged, [(kind, defect.xyxy)])
        changed += np.count_nonzero(damaged != copper)
        left += np.count_nonzero(whole != copper)
        x0, y0, x1, y1 = (max(round(v), 0) for v in defect.xyxy)
        outside = whole != damaged
        outside[y0:y1, x0:x1] = False
        assert not outside.any(), "only what is labelled is healed"
    assert changed
    assert left < 0.25 * changed


def comparing(folder: Path, *rows: tuple[float, ...], template: Template | None) -> Detector:
    size = {"height": 320, "width": 320}
    options = plugins.load("runtimes", "scripted").Options(script=(rows,), **size)
    bundle = tiny.bundle(folder, input={**size, "template": True})
    return open_detector(bundle, "scripted", options, template=template)


def test_what_is_found_beside_a_template_lies_where_it_is_in_the_frame(tmp_path: Path) -> None:
    image = black_on_white(board())
    frame = np.full((300, 500), 90, np.uint8)
    frame[40 : 40 + SIDE, 200 : 200 + SIDE] = image
    box = Box(200, 40, 200 + SIDE, 40 + SIDE)
    template = Template(cv2.copyMakeBorder(image, *[REACH_PX] * 4, cv2.BORDER_CONSTANT, value=90))
    # The cut of 288 x 288 px lies in the middle of the input of 320 x 320.
    shift = REACH_PX + 16
    detector = comparing(
        tmp_path, (shift + 10, shift + 20, shift + 30, shift + 50, 0.9, 1), template=template
    )
    assert detector.detect_at(frame, box).xyxy.tolist() == [[210, 60, 230, 90]]
    with pytest.raises(ViewError, match="does not lie whole within the frame"):
        detector.detect_at(frame[:, : 200 + SIDE // 2], box)
    with pytest.raises(ViewError, match="does not show"):
        detector.detect_at(frame[::-1].copy(), Box(200, 20, 200 + SIDE, 20 + SIDE))


def station_page(folder: Path, **model: Any) -> Path:
    page = {
        "station": {"name": "aoi-1"},
        "camera": {"kind": "images", "path": "pictures"},
        "trigger": {"kind": "every_frame"},
        "model": {"bundle": "bundle", "runtime": {"kind": "onnx"}} | model,
        "recipe": {"name": "any"},
        "store": {"path": "store", "pictures": "all", "reserve_mb": 0},
    }
    file = folder / "station.yaml"
    file.write_text(yaml.safe_dump(page))
    return file


@pytest.fixture
def taught(tmp_path: Path) -> Path:
    """Return a folder with a bundle, and the records of a station that passed one board of two."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "bundle").mkdir()
    tiny.bundle(tmp_path / "bundle", tiny.e2e_model((0.295, 0.1)))
    for number, level in enumerate((0, 255)):
        image = np.minimum(black_on_white(board()), level)
        cv2.imwrite(str(tmp_path / "pictures" / f"{number}.png"), image)
    build(load(station_page(tmp_path)), SystemClock()).run()
    return tmp_path


def test_a_part_that_passed_becomes_the_template_of_a_station(taught: Path) -> None:
    records = list(read_records(taught / "store"))
    assert [r.verdict for r in records] == [Verdict.PASS, Verdict.UNSURE]
    out = taught / "good.png"
    said = CliRunner().invoke(
        app, ["template", records[0].id, "-c", str(taught / "station.yaml"), "-o", str(out)]
    )
    assert said.exit_code == 0, said.output
    sha256 = hashlib.sha256(out.read_bytes()).hexdigest()
    assert f"    picture: good.png\n    sha256: {sha256}" in said.output, (
        "as the station file wants"
    )
    height, width = cv2.imread(str(out)).shape[:2]
    assert (height, width) == (SIDE + 2 * REACH_PX, SIDE + 2 * REACH_PX)


def test_a_part_that_did_not_pass_becomes_none_unless_somebody_says_so(taught: Path) -> None:
    doubtful = list(read_records(taught / "store"))[1]
    words = ["template", doubtful.id, "-c", str(taught / "station.yaml")]
    refused = CliRunner().invoke(app, [*words, "-o", str(taught / "no.png")])
    assert isinstance(refused.exception, ConfigError)
    assert "say --good if you have looked at it" in str(refused.exception)
    assert not (taught / "no.png").exists()
    jpeg = CliRunner().invoke(app, [*words, "--good", "-o", str(taught / "no.jpg")])
    assert "ends in .png" in str(jpeg.exception)
    done = CliRunner().invoke(app, [*words, "--good", "-o", str(taught / "yes.png")])
    assert done.exit_code == 0, done.output


def with_template(folder: Path, sha256: str | None = None) -> Path:
    """Make the bundle one that compares, and the station one with a template; return its file."""
    tiny.bundle(
        folder / "bundle",
        tiny.e2e_model((0.295, 0.1)),
        input={"height": tiny.HEIGHT, "width": tiny.WIDTH, "template": True},
    )
    picture = folder / "good.png"
    cv2.imwrite(str(picture), black_on_white(board()))
    sha256 = sha256 or hashlib.sha256(picture.read_bytes()).hexdigest()
    return station_page(folder, template={"picture": "good.png", "sha256": sha256})


def test_a_part_that_is_not_that_of_the_template_is_unsure(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "pictures").mkdir()
    file = with_template(tmp_path)
    for number, seed in enumerate((3, 4)):
        image = black_on_white(board(seed))
        cv2.imwrite(str(tmp_path / "pictures" / f"{number}.png"), image)
    build(load(file), SystemClock()).run()
    good, other = read_records(tmp_path / "store")
    assert good.verdict is not Verdict.FAIL
    assert "does not show" not in "".join(good.reasons)
    assert other.verdict is Verdict.UNSURE
    assert "does not show what the template shows" in other.reasons[0]


def test_template_and_bundle_must_fit(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "pictures").mkdir()
    file = with_template(tmp_path, sha256="0" * 64)
    with pytest.raises(ConfigError, match=r"this is not the picture that station\.yaml names"):
        open_model(load(file))
    with pytest.raises(ConfigError, match="compares each part with one that has no defect"):
        open_model(load(station_page(tmp_path)))
    (tmp_path / "good.png").write_bytes(b"no picture")
    sha256 = hashlib.sha256(b"no picture").hexdigest()
    with pytest.raises(ConfigError, match=r"good\.png"):
        open_model(load(station_page(tmp_path, template={"picture": "good.png", "sha256": sha256})))
    with pytest.raises(ConfigError, match=r"none\.png: No such file"):
        open_model(load(station_page(tmp_path, template={"picture": "none.png", "sha256": sha256})))
    file = with_template(tmp_path)
    tiny.bundle(tmp_path / "bundle")
    with pytest.raises(ConfigError, match="does not compare; take this section out"):
        open_model(load(file))


def test_a_part_that_is_turned_has_no_template(tmp_path: Path) -> None:
    file = station_page(tmp_path, template={"picture": "good.png", "sha256": "0" * 64})
    with pytest.raises(ConfigError, match="half_turns: a part that was turned does not lie on"):
        load(file, {"parts": {"half_turns": True}})


def line_page(folder: Path, bundle: str, store: str, **model: Any) -> Path:
    page = {
        "station": {"name": "aoi-1"},
        "camera": {"kind": "synthetic", "boards": 6, "layout": 5, "seed": 4, "look": "binary"},
        "trigger": {"kind": "presence"},
        "model": {"bundle": str(shipped(bundle)), "runtime": {"kind": "onnx"}} | model,
        "parts": {"views": 2},
        "recipe": {"name": "board-a"},
        "store": {"path": store, "pictures": "all", "reserve_mb": 0},
    }
    file = folder / f"{store}.yaml"
    file.write_text(yaml.safe_dump(page))
    return file


@pytest.mark.parametrize("artefact", ["fp32", "int8"])
def test_a_station_taught_with_one_board_tells_good_from_bad_on_its_line(
    tmp_path: Path, artefact: str
) -> None:
    scene = BeltScene(4, BeltSetup(boards=6, layout=5, look=optics.LOOKS["binary"]))
    is_good = [scene.truth(index)["good"] for index in range(6)]
    assert 0 < sum(is_good) < 6
    first = load(line_page(tmp_path, "models/boards-n", "first"))
    build(first, SystemClock()).run()
    records = list(read_records(first.store_path))
    assert len(records) == 6
    out = tmp_path / "board-a.png"
    sha256 = teaching.teach(first.store_path, records[is_good.index(True)], out, looked_at=True)
    model = {"template": {"picture": str(out), "sha256": sha256}, "artefact": artefact}
    taught = load(line_page(tmp_path, "models/boards-pair-n", "second", **model))
    build(taught, SystemClock()).run()
    records = list(read_records(taught.store_path))
    assert [r.verdict for r in records] == [Verdict.PASS if g else Verdict.FAIL for g in is_good]
    named = open_bundle(shipped("models/boards-pair-n")).manifest.artefacts[artefact]
    assert {record.artefact_sha256 for record in records} == {named.sha256}
    assert taught.sha256 != first.sha256
    bad = records[is_good.index(False)]
    again = rerun(taught, bad, stored_picture(taught.store_path, bad))
    assert again.verdict is bad.image_verdict
