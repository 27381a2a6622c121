"""The same weights and the same clip in the programs that people would use instead, in turns.

Each works in a process and an environment of its own; one waits while another works. What is made
here to be fair is fair to them: the model is theirs to load, warm and loaded before the clock runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from pipeline.bench import parts as part_costs
from pipeline.bench.broker import Broker, broker
from pipeline.bench.figures import Round, in_turns, ratio, spread
from pipeline.bench.line import MeasuredLine
from pipeline.bench.pictures import NO_CLIP, REJECTS, clip, played, sample
from pipeline.bench.variant import Bare, Variant, read_variant, recipe_that_rejects, station_file
from pipeline.bench.work import Work, bare_of
from pipeline.bench.worker import Worker
from pipeline.bundle import open_bundle
from pipeline.errors import LineguardError

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = "configs/lab/constraints-cpu.txt"
FRAMES, QUICK_FRAMES = 120, 8
LINE_FRAMES = 15
ONNX = "onnx:model.mode=throughput"
OPENVINO = "openvino:precision=bf16,model.mode=throughput"
"""As a clip is replayed; bf16 is what the others take where OpenVINO is left to itself."""
USUAL_SIDE = 640


@dataclass(frozen=True, slots=True)
class Peer:
    """Another program.

    Attributes:
        environment: name of the one that it needs; ``""`` is ours.
        module: that speaks for it, run with ``-m`` there.
        model: what it is given: ``pt``, ``onnx`` or ``openvino`` as exported by ultralytics, or
            ``ours-onnx`` and ``ours-openvino``, the bundle's own file.
        ours: how the station is run beside it, unless the command says otherwise.
    """

    environment: str
    module: str
    model: str
    ours: str


PEERS: Mapping[str, Peer] = {
    "ultralytics_pt": Peer("ultralytics", "peer_ultralytics", "pt", OPENVINO),
    "ultralytics_onnx": Peer("ultralytics", "peer_ultralytics", "onnx", ONNX),
    "ultralytics_openvino": Peer("ultralytics", "peer_ultralytics", "openvino", OPENVINO),
    "roboflow_fp32": Peer("roboflow", "peer_roboflow", "ours-onnx", ONNX),
    "roboflow_int8": Peer("roboflow", "peer_roboflow", "ours-openvino", OPENVINO),
    "cv2_dnn": Peer("", "peer_dnn", "onnx", ONNX),
}
INSTALL = {
    "ultralytics": "ultralytics-opencv-headless onnxruntime openvino onnx pydantic",
    "roboflow": "inference-cpu openvino",
}


def peers(work: Work) -> dict[str, Any]:
    """Let the station and each peer work through the same H.264 clip, in turns.

    Returns:
        By peer, with the side of the model's input unless that is 640: ``fps_ratio`` (the
        station's over the peer's, round by round), ``fps`` and ``cpu_ms`` per frame of both,
        ``cpu_ms_per_part`` of both on the clip of a line, every frame of which the peer looks at,
        ``cpu_per_part_ratio`` (the peer's over the station's), ``versions``; or ``skipped``, why
        and what mends it.
    """
    wanted = work.asked.peer or tuple(PEERS)
    found: dict[str, Any] = {}

    height = open_bundle(work.variant.bundle).manifest.input.height
    of_side = "" if height == USUAL_SIDE else f"_{height}"
    for number, name in enumerate(wanted):
        work.note(name)
        try:
            found[name + of_side] = _beside(work, name)
        except LineguardError as error:
            found[name + of_side] = {"skipped": str(error)}
        work.progress(number + 1, len(wanted))
    return {"peers": found}


def _python(work: Work, name: str) -> str:
    """Return the interpreter of an environment.

    Raises:
        LineguardError: it was not named; with the commands that make it.
    """
    if not name:
        return sys.executable
    given = work.asked.environments.get(name)
    if given is None and work.asked.make_envs:
        given = str(_made(work, name))
    if given is None:
        raise LineguardError(
            f"not installed: python3 -m venv ENV; ENV/bin/pip install -c {CONSTRAINTS} "
            f"{INSTALL[name]}; lineguard bench --only peers --peer-env {name}=ENV"
        )
    python = Path(given)
    python = python if python.is_file() else python / "bin" / "python"
    if not python.exists():
        raise LineguardError(f"--peer-env {name}={given}: no python in {python.parent}")
    return str(python)


def _made(work: Work, name: str) -> Path:
    """Make an environment, once; gigabytes come over the network.

    Raises:
        LineguardError: pip cannot; with its last words.
    """
    folder = work.kept / f"env-{name}"
    done = folder / "installed"
    if done.exists():
        return folder
    work.note(f"{name}: pip installs {INSTALL[name]}")
    venv.create(folder, with_pip=True, clear=True)
    words = [str(folder / "bin" / "python"), "-m", "pip", "install", "-c", str(ROOT / CONSTRAINTS)]
    took = subprocess.run(
        [*words, *INSTALL[name].split()], capture_output=True, text=True, check=False
    )
    if took.returncode != 0:
        last = (took.stderr.strip().splitlines() or ["no words"])[-1]
        raise LineguardError(f"not installed: {' '.join(words)} {INSTALL[name]}: {last[:300]}")
    done.touch()
    return folder


def _beside(work: Work, name: str) -> dict[str, Any]:
    peer = PEERS[name]
    ours = read_variant(work.asked.ours or peer.ours, work.variant.bundle)
    frames = QUICK_FRAMES if work.quick else FRAMES
    with ExitStack() as stack:
        by = stack.enter_context(broker(work.scratch))
        bare = stack.enter_context(bare_of(ours))
        if bare.template is not None:
            raise LineguardError(NO_CLIP)
        film = clip(work.kept, bare.side, bare.side, frames=frames)
        theirs = stack.enter_context(_peer(work, name, bare))
        hello = theirs.hear()
        recipe = recipe_that_rejects(REJECTS, bare, sample(played(film), frames))
        station = station_file(ours, bare, work.folder("peer"), by.port, recipe=recipe)
        line = stack.enter_context(MeasuredLine(station, played(film)))
        line.work(frames)
        _turn(theirs, film, frames)
        us, them = in_turns(
            [lambda: line.work(frames), lambda: _turn(theirs, film, frames)],
            work.rounds,
            lambda *_: None,
        )
        our_part, their_part = _per_part(work, ours, theirs, by)
    return {
        "fps_ratio": ratio([r.per_s for r in us], [r.per_s for r in them]).as_dict(),
        "cpu_ratio": ratio([r.cpu_ms for r in them], [r.cpu_ms for r in us]).as_dict(),
        "fps": {
            "ours": spread([r.per_s for r in us], 2).as_dict(),
            "theirs": spread([r.per_s for r in them], 2).as_dict(),
        },
        "cpu_ms": {
            "ours": spread([r.cpu_ms for r in us], 2).as_dict(),
            "theirs": spread([r.cpu_ms for r in them], 2).as_dict(),
        },
        "cpu_per_part_ratio": ratio(their_part, our_part).as_dict(),
        "cpu_ms_per_part": {
            "ours": spread(our_part, 1).as_dict(),
            "theirs": spread(their_part, 1).as_dict(),
        },
        "ours": bare.name,
        "proved": bare.proved,
        "versions": hello.get("versions", {}),
    }


def _turn(theirs: Worker, film: Path, frames: int) -> Round:
    theirs.tell({"clip": str(film), "frames": frames})
    answer = theirs.hear()
    return Round(answer["frames"], answer["seconds"], answer["cpu_s"])


def _per_part(
    work: Work, ours: Variant, theirs: Worker, by: Broker
) -> tuple[list[float], list[float]]:
    """Return our CPU time and a peer's per part of the line's clip, ms, round by round.

    The station replays the clip; the peer sees its first frames, and that is multiplied: a frame
    costs a peer the same with and without a part in it.
    """
    film = part_costs.line_clip(work)
    capture = cv2.VideoCapture(str(film))
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    frames = QUICK_FRAMES if work.quick else LINE_FRAMES
    us, them = in_turns(
        [
            lambda: part_costs.replayed(work, ours, film, by)[0],
            lambda: _turn(theirs, film, frames),
        ],
        work.rounds,
        lambda *_: None,
    )
    per_part = total / us[0].count
    return [r.cpu_ms for r in us], [r.cpu_ms * per_part for r in them]


def _peer(work: Work, name: str, bare: Bare) -> Worker:
    peer = PEERS[name]
    python = _python(work, peer.environment)
    model = _model(work, peer, bare)
    words = [python, "-m", f"pipeline.bench.{peer.module}", str(model), str(bare.side)]
    return Worker(name, words, work.scratch / f"{name}.log", _environment(peer.model))


def _environment(model: str) -> dict[str, str]:
    """Let a peer find our modules and know which runtime to use."""
    runtime = model.removeprefix("ours-")
    return {**os.environ, "PYTHONPATH": str(ROOT), "PEER_RUNTIME": runtime}


def _model(work: Work, peer: Peer, bare: Bare) -> Path:
    """Return what a peer loads; ultralytics exports its own the first time.

    Raises:
        LineguardError: no weights were named, or the export failed.
    """
    if peer.model.startswith("ours"):
        return bare.bundle.checked_file(bare.artefact)
    weights = work.asked.weights
    if weights is None:
        raise LineguardError("no weights: name the bundle's checkpoint with --weights FILE.pt")
    if peer.model == "pt":
        return weights
    kept = work.kept / f"peer-{peer.model}-{bare.side}.path"
    if not kept.exists():
        python = _python(work, "ultralytics")
        words = [python, "-m", "pipeline.bench.peer_ultralytics", "--export", str(weights)]
        words += [peer.model, str(work.kept), str(bare.side)]
        with Worker(
            "export", words, work.scratch / "export.log", _environment(peer.model)
        ) as export:
            kept.write_text(export.hear()["model"], encoding="utf-8")
    return Path(kept.read_text(encoding="utf-8"))
