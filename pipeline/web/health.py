"""What the pages may say of a station now: never that it is well while that is not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.clock import NS_PER_S
from pipeline.readiness import RECEIVER

SILENT_S = 1.5
"""A station tells its state ten times a second; silence for so long means that it is gone."""

NO_PICTURE_S = 3.0

_WORDS = {
    "starting": "Starting",
    "ready": "Ready",
    "degraded": "Degraded",
    "not ready": "Not ready",
    "stopping": "Stopping",
    "stopped": "Stopped",
}


@dataclass(frozen=True, slots=True)
class Health:
    """A station's state in words.

    Attributes:
        level: ``good``, ``warning``, ``fault`` or ``off``; only ``good`` may be shown green.
        title: a few words.
        reasons: why it is not good, one sentence each.
        trusted: whether verdicts that are shown count as of now.
    """

    level: str
    title: str
    reasons: tuple[str, ...]
    trusted: bool


def judge(state: Mapping[str, Any] | None, now_ns: int) -> Health:
    """Judge the state that a station wrote last.

    Args:
        state: as ``live.View.state`` returns it.
        now_ns: monotonic time of this machine, which the station's stamps share.
    """
    if state is None:
        return Health("off", "No station", ("No station has been started with this store.",), False)
    name = str(state.get("state"))
    silent_s = (now_ns - int(state.get("written_ns", 0))) / NS_PER_S
    if name == "stopped":
        died_of = _faults(state)
        level = "fault" if died_of else "off"
        return Health(level, "Stopped", (*died_of, "The station has stopped."), False)
    if not 0 <= silent_s <= SILENT_S:
        said = f"No sign of life from the station for {_span(silent_s)}. Is its process running?"
        return Health("fault", "No contact", (said, *_faults(state)), False)
    if name not in ("ready", "degraded"):
        level = "warning" if name in ("starting", "stopping") else "fault"
        return Health(level, _WORDS.get(name, name), _faults(state) or (f"It is {name}.",), False)
    return _seeing(state, name, now_ns)


def _seeing(state: Mapping[str, Any], name: str, now_ns: int) -> Health:
    """Judge a station that holds itself ready."""
    blind_s = (now_ns - int(state.get("frame_ns") or 0)) / NS_PER_S
    if blind_s > NO_PICTURE_S:
        said = f"The camera has given no picture for {_span(blind_s)}."
        return Health("warning", "No picture", (said, *_faults(state)), False)
    if name == "degraded":
        return Health("warning", _WORDS[name], _faults(state), True)
    return Health("good", _WORDS[name], (), True)


def _faults(state: Mapping[str, Any]) -> tuple[str, ...]:
    """Say each fault with the part of the station that it is of; messages often name it already."""
    said = []
    for part, reason in dict(state.get("faults") or {}).items():
        name = part.removeprefix(RECEIVER)
        text = str(reason)
        said.append(text if name.lower() in text.lower() else f"{name}: {text}")
    return tuple(said)


def _span(seconds: float) -> str:
    if not 0 <= seconds < 86_400:
        return "a long time"
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
