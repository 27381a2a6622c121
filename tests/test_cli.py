"""The command line as a person meets it: one line for a mistake, and exit codes that mean it."""

import json
import os
import socket
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.cli.bundles import is_permissive
from pipeline.cli.lines import said_while_running
from pipeline.schema import EXAMPLE
from tests import tiny
from tests.conftest import REPOSITORY

CONFIG_EXIT, BUNDLE_EXIT, UNREACHABLE_EXIT, DISK_EXIT = 78, 78, 69, 74


def lineguard(*words: object, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with an empty home."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *(str(w) for w in words)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def station_file(folder: Path, **changes: str) -> Path:
    """Write a station file that counts parts; each change replaces a whole section."""
    sections = {
        "station": "{name: test}",
        "camera": "{kind: synthetic, boards: 1, seed: 3}",
        "trigger": "{kind: presence}",
        "model": f"{{bundle: {REPOSITORY / 'models' / 'boards-n'}, runtime: {{kind: onnx}}}}",
        "parts": "{views: 1}",
        "recipe": "{name: test}",
        "store": "{path: store}",
    } | changes
    file = folder / "station.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in sections.items()))
    return file


def picture_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packed = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def truncated_video(file: Path) -> Path:
    """Write a video and cut off its second half, the index kept in front."""
    whole = file.with_suffix(".avi")
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter_fourcc(*"MJPG"), 30, (320, 240))
    for i in range(60):
        writer.write(np.full((240, 320, 3), 40 + i, np.uint8))
    writer.release()
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    return whole


def said_in_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("lineguard: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"camera": "{kind: synthetic, bords: 1}"}, ("camera.bords", "unknown key")),
        ({"sorte": "{path: store}"}, ("sorte", "unknown key", "store")),
        ({"parts": "{views: many}"}, ("parts.views", "many")),
        ({"camera": "{kind: webcam}"}, ("camera.kind", "webcam", "synthetic")),
        ({"model": "{bundle: nowhere, runtime: {kind: onnx}}"}, ("nowhere", "no model bundle")),
        ({"recipe": "{name: test, defects: {dent: {fail: 0.5}}}"}, ("dent", "open")),
    ],
)
def test_a_mistake_in_the_station_file_is_named_with_its_key(
    tmp_path: Path, changes: dict[str, str], words: tuple[str, ...]
) -> None:
    done = lineguard("config", "check", station_file(tmp_path, **changes), home=tmp_path)
    assert done.returncode == CONFIG_EXIT
    said_in_one_line(done, *words)


def test_a_right_station_file_is_well(tmp_path: Path) -> None:
    done = lineguard("config", "check", station_file(tmp_path), home=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "well" in done.stdout


def test_a_missing_video_is_named(tmp_path: Path) -> None:
    done = lineguard("replay", tmp_path / "gone.mp4", "-c", station_file(tmp_path), home=tmp_path)
    assert done.returncode == CONFIG_EXIT
    said_in_one_line(done, "gone.mp4", "no such file")


def test_a_text_file_named_mp4_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "line.mp4").write_text("this is text\n" * 100)
    done = lineguard("replay", tmp_path / "line.mp4", "-c", station_file(tmp_path), home=tmp_path)
    assert done.returncode == CONFIG_EXIT
    said_in_one_line(done, "line.mp4")


def test_a_truncated_video_is_never_silently_short(tmp_path: Path) -> None:
    clip = truncated_video(tmp_path / "cut")
    done = lineguard("replay", clip, "-c", station_file(tmp_path), home=tmp_path)
    assert done.returncode in (CONFIG_EXIT, UNREACHABLE_EXIT)
    said_in_one_line(done, "cut.avi", "60")


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "bomb.png").write_bytes(picture_header(30_000, 30_000))
    done = lineguard("replay", folder, "-c", station_file(tmp_path), home=tmp_path)
    assert done.returncode == CONFIG_EXIT
    said_in_one_line(done, "bomb.png", "30000", "limit")


@pytest.mark.parametrize("damage", ["hash", "labels"])
def test_a_model_that_does_not_fit_its_manifest_is_refused(tmp_path: Path, damage: str) -> None:
    source, bundle = REPOSITORY / "models" / "boards-n", tmp_path / "bundle"
    bundle.mkdir()
    manifest = json.loads((source / "manifest.json").read_text())
    for artefact in manifest["artefacts"].values():
        data = bytearray((source / artefact["path"]).read_bytes())
        data[len(data) // 2] ^= 1 if damage == "hash" else 0
        (bundle / artefact["path"]).write_bytes(data)
    if damage == "labels":
        manifest["labels"] = manifest["labels"][:-1]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    file = station_file(tmp_path, model=f"{{bundle: {bundle}, runtime: {{kind: onnx}}}}")
    done = lineguard("config", "check", file, home=tmp_path)
    assert done.returncode == BUNDLE_EXIT
    said_in_one_line(done, "manifest")


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where a folder should be")
    done = lineguard("run", station_file(tmp_path), home=tmp_path)
    assert done.returncode == DISK_EXIT
    said_in_one_line(done, "store")


def test_an_unreachable_broker_loses_nothing_and_is_named_at_the_end(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = station_file(tmp_path, publishers=f"[{{kind: mqtt, port: {port}}}]")
    done = lineguard("run", file, "--json", tmp_path / "figures.json", home=tmp_path)
    assert done.returncode == UNREACHABLE_EXIT
    assert f"127.0.0.1:{port}" in done.stderr.splitlines()[-1]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["undelivered"] == {"mqtt": 1}
    assert figures["frames"]["captured"] == figures["frames"]["inspected"]


def test_nothing_is_written_into_the_home(tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    for runtime in ("onnx", "openvino"):
        model = f"{{bundle: {REPOSITORY / 'models' / 'boards-n'}, runtime: {{kind: {runtime}}}}}"
        done = lineguard("run", station_file(work, model=model), home=home)
        assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []


def test_bench_compares_two_ways_to_run_the_station_and_keeps_what_it_found(
    tmp_path: Path,
) -> None:
    kept = ("--kept", tmp_path / "kept", "--json", "-")
    words = ("--quick", "--only", "against", "--against", "onnx:threads=1")
    done = lineguard("bench", *words, *kept, home=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    (found,) = figures["sections"]["against"]["figures"]["pairs"].values()
    assert 0 < found["fps_ratio"]["min"] <= found["fps_ratio"]["median"]
    assert [side["runtime"] for side in found["sides"]] == ["onnx/cpu/fp32"] * 2
    assert figures["machine"]["cores"] > 0
    again = lineguard("bench", "--no-measure", *kept, home=tmp_path)
    assert json.loads(again.stdout) == figures


def test_a_record_is_one_line_of_a_log_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    record = replace(EXAMPLE, reasons=("open [0.93] at (211, 80)" * 5, "second", "third"))
    said_while_running(None).tell(record)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"part {record.part:>4}  FAIL        38 ms  open [0.93] at")
    assert line.endswith("; second (+1)")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "Missing argument 'config'; see: lineguard run --help"),
        (["run", "--nope"], "No such option: --nope; see: lineguard run --help"),
        (["nosuch"], "No such command 'nosuch'; see: lineguard --help"),
        (["chaos", "--kills", "0"], "'--kills'"),
    ],
)
def test_wrong_use_is_one_line_that_names_the_help(
    tmp_path: Path, words: list[str], said: str
) -> None:
    done = lineguard(*words, home=tmp_path)
    assert done.returncode == 2
    said_in_one_line(done, said)


def test_a_group_named_alone_shows_its_commands(tmp_path: Path) -> None:
    done = lineguard("models", home=tmp_path)
    assert done.returncode == 2
    assert "selftest" in done.stdout + done.stderr
    assert "lineguard:" not in done.stderr


def test_every_command_teaches_itself(tmp_path: Path) -> None:
    for command in ("demo", "run", "replay", "doctor", "bench", "models", "config", "lab"):
        done = lineguard(command, "--help", home=tmp_path)
        assert done.returncode == 0
        assert "Usage" in done.stdout


def test_a_deploy_gate_ends_with_1_on_a_licence_that_is_not_permissive(tmp_path: Path) -> None:
    boards = REPOSITORY / "models" / "boards-n"
    assert lineguard("models", "info", boards, home=tmp_path).returncode == 0
    done = lineguard("models", "info", boards, "--require-permissive", home=tmp_path)
    assert done.returncode == 1
    assert "'AGPL-3.0 License" in done.stderr
    tiny.bundle(tmp_path, licence="Apache-2.0")
    assert (
        lineguard("models", "info", tmp_path, "--require-permissive", home=tmp_path).returncode == 0
    )


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("MIT", True),
        ("Apache-2.0 (weights trained by ourselves)", True),
        ("AGPL-3.0 License (https://ultralytics.com/license)", False),
        ("MITRE", False),
        ("not MIT", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_a_licence_counts_as_permissive_by_its_spdx_id_only(licence: str, expected: bool) -> None:
    assert is_permissive(licence) is expected


def test_a_waiver_needs_a_reason_and_a_name(tmp_path: Path) -> None:
    done = lineguard("lab", "parity", tmp_path, "--waive", "because", home=tmp_path)
    assert (done.returncode, "belong together" in done.stderr) == (CONFIG_EXIT, True)
