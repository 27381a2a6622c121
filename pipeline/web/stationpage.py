"""The station page: each part of the station, how it is, and what to do if it is not well."""

from __future__ import annotations

import platform
import shutil
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipeline.readiness import DEGRADING, RECEIVER
from pipeline.web.board import Board
from pipeline.web.health import judge

LOW_DISK_SHARE = 0.05
DROPPED_SHARE = 0.1
_PACKAGES = ("lineguard", "numpy", "opencv-python", "onnxruntime", "openvino", "paho-mqtt")


def station_page(board: Board) -> dict[str, Any]:
    """Return state, and a row per part of the station: name, level, said, mend."""
    state = board.view.state()
    health = judge(state, time.monotonic_ns())
    faults = dict((state or {}).get("faults") or {})
    known = state is not None and health.level != "off" and health.title != "No contact"
    return {
        "health": {"level": health.level, "title": health.title, "reasons": health.reasons},
        "rows": [
            *_camera(board, state, faults, known),
            _model(state, faults, known),
            *_receivers(board, state, faults, known),
            _disk(board),
            _ledger(board),
            *_others(faults),
        ],
        "identity": {
            key: (state or {}).get(key)
            for key in (
                "station",
                "run",
                "recipe",
                "bundle",
                "runtime",
                "bundle_sha256",
                "artefact_sha256",
                "config_sha256",
                "pid",
            )
        },
        "frames": (state or {}).get("frames"),
        "latency_ms": (state or {}).get("latency_ms"),
        "versions": {"python": platform.python_version(), **_versions()},
        "utc_ms": int(time.time() * 1000),
    }


def _row(name: str, level: str, said: str, mend: str = "") -> dict[str, str]:
    return {"name": name, "level": level, "said": said, "mend": mend}


def _camera(board: Board, state: Any, faults: dict[str, str], known: bool) -> list[dict[str, str]]:
    kind = (state or {}).get("camera_kind") or board.config.camera.kind
    if not known:
        return [_row("Camera", "off", f"{kind}; not known while the station is away")]
    if "camera" in faults:
        mend = "Check, in this order: power at the camera, its cable, the address in the file."
        return [_row("Camera", "fault", faults["camera"], mend)]
    if state.get("frame_ns") is None:
        return [_row("Camera", "warning", f"{kind}; no picture yet", "Wait for the first frame.")]
    age_ms = (time.monotonic_ns() - state["frame_ns"]) / 1e6
    level = "good" if age_ms < 3000 else "warning"
    return [_row("Camera", level, f"{kind}; newest picture {age_ms:.0f} ms ago")]


def _model(state: Any, faults: dict[str, str], known: bool) -> dict[str, str]:
    if "inspect" in faults:
        return _row("Model", "fault", faults["inspect"], "Restart; if it comes again, roll back.")
    if not known:
        return _row("Model", "off", "not known while the station is away")
    p99 = (state.get("latency_ms") or {}).get("p99")
    said = f"{state.get('bundle')} on {state.get('runtime')}"
    said = said if p99 is None else f"{said}; p99 {p99:.0f} ms"
    frames = state.get("frames") or {}
    dropped = sum((frames.get("dropped") or {}).values())
    if dropped > DROPPED_SHARE * max(frames.get("captured", 0), 1):
        said = f"{said}; {dropped} of {frames['captured']} frames were not looked at"
        mend = "Parts get fewer views: lower camera.fps or parts.views, or take a faster runtime."
        return _row("Model", "warning", said, mend)
    return _row("Model", "good", said)


def _receivers(
    board: Board, state: Any, faults: dict[str, str], known: bool
) -> list[dict[str, str]]:
    waiting = board.ledger.waiting()
    rows = []
    for name in sorted({*waiting, *((state or {}).get("receivers") or ())}):
        count = waiting.get(name, 0)
        fault = faults.get(RECEIVER + name)
        said = f"{count} records wait" if count else "everything delivered"
        if fault is not None:
            mend = "The line goes on; records wait in the ledger. Start the receiver again."
            rows.append(_row(f"Receiver {name}", "warning", f"{fault}; {said}", mend))
        else:
            rows.append(_row(f"Receiver {name}", "good" if known else "off", said))
    return rows


def _disk(board: Board) -> dict[str, str]:
    usage = shutil.disk_usage(board.config.store_path)
    share = usage.free / usage.total
    said = f"{usage.free / 1e9:.1f} GB free of {usage.total / 1e9:.0f} GB"
    if share < LOW_DISK_SHARE:
        return _row("Disk", "warning", said, "Make room, or lower store.keep_pictures_mb.")
    return _row("Disk", "good", said)


def _ledger(board: Board) -> dict[str, str]:
    last = board.ledger.last_number()
    kept = board.ledger.at(last) if last else None
    if kept is None:
        return _row("Ledger", "off", "no record yet")
    link = board.ledger.link(kept)
    said = f"{last:,} records; newest hash {kept.sha256[:12]}".replace(",", " ")
    if link.whole:
        return _row("Ledger", "good", said)
    return _row("Ledger", "fault", f"{said}: the chain is broken", "Do not trust this store.")


def _others(faults: dict[str, str]) -> list[dict[str, str]]:
    known = ("camera", "inspect")
    return [
        _row(part.capitalize(), "warning" if part.startswith(DEGRADING) else "fault", said)
        for part, said in faults.items()
        if part not in known and not part.startswith(RECEIVER)
    ]


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
