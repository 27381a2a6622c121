"""The bench: keys, counts and refusals; no test here depends on how fast anything is."""

import io
import itertools
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipeline.bench import density, peers, sections
from pipeline.bench.broker import broker
from pipeline.bench.camera import GatedCamera
from pipeline.bench.figures import Round, in_turns, percentiles, ratio, spread
from pipeline.bench.growth import drafts_of, fill
from pipeline.bench.line import MeasuredLine
from pipeline.bench.page import rows_of, write_page
from pipeline.bench.pictures import NO_CLIP, boards
from pipeline.bench.plot import bars, curves
from pipeline.bench.variant import Variant, open_bare, read_variant, scripted_twin
from pipeline.bench.work import Asked, Loop, Work, usual_station
from pipeline.bench.worker import Worker
from pipeline.chaos.line import DECODER
from pipeline.cli.bench import show
from pipeline.cli.main import app
from pipeline.errors import ConfigError, LineguardError
from pipeline.shipped import shipped
from pipeline.store import Ledger, read_records
from tests import tiny

SIDE = 160
SCRIPT = (((8.0, 8.0, 80.0, 80.0, 0.9, 0.0),), ())
"""Every other picture shows a defect."""


@pytest.fixture
def scripted(tmp_path: Path) -> Variant:
    """Return a variant whose model is a script: it costs nothing, so only counts are left."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "script").write_bytes(b"answers stand with the runtime")
    limits = {"fail": 0.5, "unsure": 0.2}
    manifest = {
        "name": "scripted",
        "version": "1",
        "decoder": DECODER,
        "labels": ["dent", "scratch"],
        "input": {"height": SIDE, "width": SIDE},
        "thresholds": {"dent": limits, "scratch": limits},
        "artefacts": {
            "script": {
                "path": "script",
                "sha256": tiny.sha256_of(folder / "script"),
                "runtimes": ["scripted"],
                "precision": "fp32",
            }
        },
        "licence": "CC0-1.0",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    runtime = {
        "kind": "scripted", "height": SIDE, "width": SIDE, "after": "cycle", "script": SCRIPT,
    }  # fmt: skip
    return Variant("scripted", folder, runtime, {})


@pytest.fixture
def work(tmp_path: Path, scripted: Variant) -> Work:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Work((scripted,), scratch, tmp_path / "kept", quick=True, clip_frames=6)


def asking(work: Work, **asked: Any) -> Work:
    return replace(work, asked=Asked(**asked))


def needs_a_broker() -> None:
    """Skip where neither Mosquitto nor the demo's broker is installed."""
    if shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None:
        pytest.importorskip("iotcore", reason="no broker: install mosquitto or lineguard[demo]")


def test_a_spread_holds_median_least_and_most() -> None:
    found = spread([3.0, 1.0, 2.0])
    assert (found.median, found.min, found.max, found.rounds) == (2.0, 1.0, 3.0, 3)


def test_percentiles_are_values_that_were_measured() -> None:
    found = percentiles([float(n) for n in range(1, 1001)])
    assert found == {"p50": 500.0, "p99": 990.0, "p999": 999.0, "max": 1000.0}
    assert percentiles([]) == {}


def test_sides_take_turns_and_the_first_is_not_always_first() -> None:
    order: list[str] = []

    def side(name: str) -> Callable[[], Round]:
        def work() -> Round:
            order.append(name)
            return Round(1, 1.0, 0.5)

        return work

    taken = in_turns([side("a"), side("b")], 3, lambda *_: None)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [len(rounds) for rounds in taken] == [3, 3]


def test_a_ratio_is_taken_round_by_round() -> None:
    found = ratio([10.0, 40.0, 90.0], [10.0, 20.0, 30.0])
    assert (found.min, found.median, found.max) == (1.0, 2.0, 3.0)


def test_a_variant_names_runtime_options_artefact_and_settings() -> None:
    read = read_variant("openvino:precision=bf16,artefact=int8,parts.views=3", Path("b"))
    assert read.runtime == {"kind": "openvino", "precision": "bf16"}
    assert read.artefact == "int8"
    assert read.settings["parts"] == {"views": 3}


@pytest.mark.parametrize(
    ("text", "said"),
    [("none", "there is no kind 'none'"), ("onnx:threads", "is not KEY=VALUE")],
)
def test_a_variant_that_cannot_be_read_says_why(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_variant(text, Path("b"))


def test_an_option_of_the_wrong_type_is_one_line() -> None:
    variant = read_variant("onnx:threads=many", shipped("models/boards-n"))
    with pytest.raises(ConfigError, match="threads: ") as raised:
        open_bare(variant)
    assert "\n" not in str(raised.value)


def test_a_gated_camera_gives_what_it_is_told_and_stamps_when_it_was_due() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    camera = GatedCamera(itertools.repeat(image), live=False)
    camera.give(3, fps=100.0)
    camera.give(1)
    taken = list(itertools.islice(camera.frames(), 4))
    assert [frame.seq for frame in taken] == [0, 1, 2, 3]
    steps = np.diff([frame.t_ns for frame in taken[:3]])
    assert steps.tolist() == [10_000_000, 10_000_000]
    camera.close()


def test_a_closed_gated_camera_ends() -> None:
    camera = GatedCamera(itertools.repeat(np.zeros((4, 4, 3), np.uint8)), live=True)
    camera.give(5)
    camera.close()
    assert list(camera.frames()) == []


def test_a_line_under_measurement_decides_records_and_publishes_every_part(
    work: Work, scripted: Variant
) -> None:
    needs_a_broker()
    bare = open_bare(scripted)
    with broker(work.scratch) as by:
        file = usual_station(scripted, bare, work.folder("line"), by.port)
        with MeasuredLine(file, itertools.cycle(boards(SIDE))) as line:
            assert line.work(12).count == 12
            paced = line.pace(8, 200.0)
    assert (paced.given, paced.lost, paced.recorded) == (8, 0, 8)
    assert len(paced.latency_ms) == len(paced.decided_ns) == 8
    assert len(list(read_records(line.store))) == 20
    assert set(line.verdicts) == {"PASS", "FAIL"}


def test_several_workers_are_measured_beside_as_many_bare_runtimes(
    work: Work, scripted: Variant
) -> None:
    both = Variant(
        "two", scripted.bundle, scripted.runtime, {"model": {"mode": "throughput", "workers": 2}}
    )
    bare = open_bare(both)
    assert bare.name.endswith(" x 2")
    assert Loop(bare).work(7).count == 7
    file = usual_station(both, bare, work.folder("line"), None)
    with MeasuredLine(file, itertools.cycle(boards(SIDE))) as line:
        assert [line.work(10).count, line.work(10).count] == [10, 10]
        assert len(line.decided) == 20


@pytest.fixture
def comparing(scripted: Variant) -> Variant:
    """Return the scripted variant, whose model compares."""
    file = scripted.bundle / "manifest.json"
    page = json.loads(file.read_text(encoding="utf-8"))
    page["input"]["template"] = True
    file.write_text(json.dumps(page), encoding="utf-8")
    return scripted


def test_a_model_that_compares_is_measured_on_boards_that_are_alike(
    work: Work, comparing: Variant
) -> None:
    bare = open_bare(comparing)
    assert Loop(bare).work(3).count == 3
    file = usual_station(comparing, bare, work.folder("line"), None)
    with MeasuredLine(file, itertools.cycle(bare.boards)) as line:
        line.work(20)
        seen = [record.views for record in read_records(line.store)]
    assert seen == [1] * 20  # a board that is not the template's has no view that counts
    assert set(line.verdicts) == {"PASS", "FAIL"}


@pytest.mark.parametrize("name", ["e2e", "parts"])
def test_a_clip_of_boards_that_differ_is_not_shown_to_a_model_that_compares(
    name: str, work: Work, comparing: Variant
) -> None:
    needs_a_broker()
    results = sections.measured(name, work, {})
    said = [row for row in rows_of(name, results["sections"][name]["figures"]) if NO_CLIP in row]
    assert said
    assert "cpu_ms_per_part" not in results


def test_what_is_not_proved_is_timed_in_a_copy_and_the_bundle_stays_as_it_was(
    work: Work, scripted: Variant
) -> None:
    before = {f.name: f.read_bytes() for f in scripted.bundle.iterdir()}
    bare = open_bare(scripted)
    assert not bare.proved
    assert "not proved" in bare.name
    page = json.loads(usual_station(scripted, bare, work.folder("line"), None).read_text())
    assert Path(page["model"]["bundle"]).is_relative_to(work.scratch)
    assert {f.name: f.read_bytes() for f in scripted.bundle.iterdir()} == before


def test_a_twin_finds_what_the_model_found(work: Work, scripted: Variant) -> None:
    twin = scripted_twin(open_bare(scripted), boards(SIDE)[:4], work.folder("twin"))
    bare = open_bare(twin)
    nothing = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    found = [bare.runtime.infer(nothing)[0][0] for _ in range(5)]
    assert [len(rows) for rows in found] == [0, 0, 1, 0, 1]  # the first of each warms up
    assert np.allclose(found[2], SCRIPT[0])


def test_a_section_that_was_not_measured_stays_on_the_page(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    results = results_of_all()
    write_page({"sections": results}, page)
    before = page.read_text(encoding="utf-8")
    write_page({"sections": {}}, page)
    assert page.read_text(encoding="utf-8") == before
    results["parts"]["figures"]["parts"] = 4711
    write_page({"sections": {"parts": results["parts"]}}, page)
    after = page.read_text(encoding="utf-8")
    assert after.count("## ") == before.count("## ")
    assert "4711" in after
    assert "certificate | well" in after


def test_the_table_names_the_extra_that_is_missing() -> None:
    shown = io.StringIO()
    people = Console(file=shown, width=200)
    skipped = {"ultralytics_onnx": {"skipped": "install it with: pip install 'lineguard[bench]'"}}
    taken = {"figures": {"peers": skipped}, "quick": False}
    machine = {"cpu": "a processor", "cores": 2, "python": "3.11"}
    show({"sections": {"peers": taken}, "machine": machine}, people)
    assert "'lineguard[bench]'" in shown.getvalue()


SECTION_KEYS: dict[str, list[str]] = {
    "stages": [
        "ms.letterbox.median",
        "ms.inference.median",
        "cpu_ms.record.median",
        "besides_model_cpu_ms.median",
        "runtime",
    ],
    "e2e": [
        "sources.memory_160.over_raw.median",
        "sources.memory_160.cpu_ms_beyond_raw.median",
        "sources.memory_160.frames_per_round",
    ],
    "paced": ["pace.latency_ms.p999", "pace.to_subscriber_ms.p99", "certificate"],
    "burst": ["pace.latency_ms.p999", "pace.to_subscriber_ms.p99", "certificate"],
    "ledger": ["sizes"],
}


def at(figures: Any, path: str) -> Any:
    for key in path.split("."):
        figures = figures[key]
    return figures


@pytest.mark.parametrize("name", SECTION_KEYS)
def test_a_section_measures_and_says_what_it_found(name: str, work: Work, tmp_path: Path) -> None:
    needs_a_broker()
    small = asking(work, parts=6, parts_per_min=6000.0, records=1500)
    results = sections.measured(name, small, {})
    figures = results["sections"][name]["figures"]
    for path in SECTION_KEYS[name]:
        assert at(figures, path) not in (None, {}, [])
    assert rows_of(name, figures)
    write_page(results, tmp_path / "page.md")
    assert "Machine" in (tmp_path / "page.md").read_text(encoding="utf-8")


def test_the_pace_counts_every_part_and_every_arrival(work: Work) -> None:
    needs_a_broker()
    figures = sections.SECTIONS["paced"].measure(asking(work, parts=6, parts_per_min=6000.0))
    turn = figures["pace"]
    assert turn["parts"] == turn["recorded"] == turn["heard"] == 6
    assert figures["chained_records"] == 6 + figures["beside_a_hog"]["parts"] + 4
    assert re.fullmatch(
        r"6000 parts/min, p99 [\d.]+ ms, p99.9 [\d.]+ ms, \d lost over 6, 0 without a verdict",
        figures["certificate"],
    )
    assert turn["silent"] == 0


def test_two_configurations_are_compared_in_turns(work: Work, scripted: Variant) -> None:
    needs_a_broker()
    both = Work(work.variants, work.scratch, work.kept, against=scripted, quick=True)
    pair = {"fps_ratio": {"median": 1.5}}
    earlier = {"sections": {"against": {"figures": {"pairs": {"b / a, 320 px": pair}}}}}
    results = sections.measured("against", both, earlier)
    pairs = results["sections"]["against"]["figures"]["pairs"]
    name = "scripted / scripted, scripted"
    assert list(pairs) == ["b / a, 320 px", name]
    assert pairs[name]["fps_ratio"]["rounds"] == 5
    assert [side["variant"] for side in pairs[name]["sides"]] == ["scripted", "scripted"]
    assert results["against"]["b / a, 320 px"] == 1.5


def test_stations_are_spread_evenly_over_the_cores() -> None:
    assert [density.cores_of(n, 4, [2, 5]) for n in range(4)] == [(2,), (5,), (2,), (5,)]
    assert density.cores_of(0, 1, [2, 5]) == (2, 5)


def test_the_ledger_is_as_long_as_it_was_asked_to_be(work: Work) -> None:
    figures = sections.SECTIONS["ledger"].measure(asking(work, records=5000))
    assert [size["records"] for size in figures["sizes"]] == [1000, 3000, 5000]


def test_a_filled_ledger_is_chained_and_byte_for_byte_as_the_station_writes_it(
    tmp_path: Path,
) -> None:
    Ledger(tmp_path).close()
    fill(tmp_path, 30)
    fill(tmp_path, 50)
    ledger = Ledger(tmp_path)
    ledger.append([drafts_of("after")])
    ledger.close()
    assert len(list(read_records(tmp_path))) == 51


def results_of_all() -> dict[str, Any]:
    """Return results as a whole run gives them, in small."""
    one = {"median": 0.9, "min": 0.8, "max": 1.0, "rounds": 5}
    shares = {"p50": 1.0, "p99": 2.0, "p999": 3.0, "max": 4.0}
    source = {"over_raw": one, "over_ceiling": one, "fps": one, "raw_fps": one, "cpu_ms": one,
              "cpu_ms_beyond_raw": one, "rejects": 0.1, "runtime": "onnx/cpu/fp32"}  # fmt: skip
    names = ("memory_640", "memory_320", "h264_640", "h264_1080")
    start = {"first_verdict_s": one, "rss_mb": 150.0, "most_mb": 160.0, "growth_mb": 0.0,
             "parts": 5}  # fmt: skip
    peer = {"fps_ratio": one, "cpu_per_part_ratio": one, "fps": {"theirs": one},
            "cpu_ms_per_part": {"ours": one, "theirs": one},
            "versions": {"x": "1"}, "ours": "onnx/cpu/fp32"}  # fmt: skip
    turn = {"latency_ms": shares, "to_subscriber_ms": shares, "parts": 5, "lost": 0}
    figures = {
        "e2e": {"sources": {name: source for name in names}},
        "paced": {"pace": turn, "beside_a_hog": turn, "certificate": "well", "inference_ms": 1.0,
                  "p99_over_inference": 2.0, "runtime": "onnx"},
        "start": {"runtimes": {"onnx": start, "openvino": start, "openvino cached": start}},
        "parts": {"cpu_ms_per_part": one, "fps": one, "verdicts": {"PASS": 1}, "parts": 1,
                  "clip": "c", "frames": 3, "same_every_time": True, "runtime": "onnx"},
        "peers": {"peers": {name: peer for name in peers.PEERS} | {"cv2_dnn": {"skipped": "no"}}},
    }  # fmt: skip
    taken = {"seconds": 1.0, "quick": False, "machine": {"time": "now", "load": 0.0}}
    return {name: {"figures": f, **taken} for name, f in figures.items()}


def test_the_promised_keys_are_plain_numbers() -> None:
    found = sections.promised(results_of_all())
    assert set(found["e2e_over_raw"]) == {"memory_640", "memory_320", "h264_640", "h264_1080"}
    assert set(found["peers"]) == {
        "ultralytics_pt", "ultralytics_onnx", "ultralytics_openvino", "roboflow_int8",
        "roboflow_fp32",
    }  # fmt: skip
    assert found["peers_cpu_per_part"].keys() == found["peers"].keys()
    assert found["cold_start_s"] == {"onnx": 0.9, "openvino": 0.9}
    assert found["rss_mb"] == 150.0
    assert found["cpu_ms_per_part"] == 0.9
    assert found["trigger_to_verdict_ms"] == {"p50": 1.0, "p99": 2.0, "p999": 3.0}


def test_the_page_shows_every_section_and_its_plots_are_whole(tmp_path: Path) -> None:
    write_page({"sections": results_of_all()}, tmp_path / "performance.md")
    page = (tmp_path / "performance.md").read_text(encoding="utf-8")
    for plot in re.findall(r"\((images/[^)]+\.svg)\)", page):
        ElementTree.parse(tmp_path / plot)
    for said in ("over the bare runtime", "Trigger to verdict", "Other programs", "not measured"):
        assert said in page


def test_bars_and_curves_hold_every_point() -> None:
    drawn = ElementTree.fromstring(bars("t <&", [("a", 1, 0.5, 2), ("b", 3, 3, 3)], "x", 1.0))
    assert len(drawn.findall("{*}rect")) == 2
    drawn = ElementTree.fromstring(curves("t", "x", {"s": [(1, 2), (1000, 4)], "none": []}, "ms"))
    assert len(drawn.findall("{*}circle")) == 2


def test_a_section_measured_again_replaces_only_itself(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    before = {"sections": results_of_all(), "machine": {}}
    sections.write_results(before, file)
    assert sections.read_results(file) == before
    assert sections.chosen(["paced"], ()) == ("paced",)
    assert "peers" not in sections.chosen((), ())
    assert "peers" in sections.chosen((), ["peers"])
    with pytest.raises(ConfigError, match="no section 'none'"):
        sections.chosen(["none"], ())


@pytest.mark.parametrize("text", ["[1", "[]", '{"sections": {}}', '{"sections": {}, "form": 1}'])
def test_results_of_another_form_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="remove it"):
        sections.read_results(tmp_path / "results.json")


def test_a_peer_that_is_not_installed_says_the_command_that_mends_it(work: Work) -> None:
    needs_a_broker()
    asked = asking(work, peer=("ultralytics_pt",), ours="scripted", weights=Path("w.pt"))
    found = peers.peers(asked)["peers"][f"ultralytics_pt_{SIDE}"]
    assert found["skipped"].startswith(("not installed: python3 -m venv ENV", "no H.264 clip"))


ECHO = "import json,sys\nprint('chatter')\nfor l in sys.stdin: print(json.dumps({'got': l}))\n"


def test_a_worker_answers_between_the_chatter_of_its_libraries(tmp_path: Path) -> None:
    with Worker("echo", [sys.executable, "-u", "-c", ECHO], tmp_path / "log") as echo:
        echo.tell({"n": 1})
        assert json.loads(echo.hear()["got"]) == {"n": 1}


def test_a_worker_that_dies_leaves_its_last_words(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "import sys; sys.exit('out of luck')"]
    with (
        pytest.raises(LineguardError, match="ended with code 1: out of luck"),
        Worker("one", words, tmp_path / "log") as one,
    ):
        one.hear()


def test_boards_fill_their_picture_and_cannot_be_written_to() -> None:
    for image in boards(SIDE):
        assert image.shape == (SIDE, SIDE, 3)
        assert not image.flags.writeable


def test_the_help_names_every_section() -> None:
    from pipeline.cli.bench import NAMES

    assert NAMES.split(", ") == list(sections.SECTIONS)


def test_bench_without_measuring_says_what_was_kept(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["bench", "--no-measure", "--kept", str(tmp_path)])
    assert said.exit_code == 0
    assert "nothing was measured yet" in said.output
