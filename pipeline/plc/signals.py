"""What station and PLC show each other, and how long each may take."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from pipeline.clock import NS_PER_MS


class Code(IntEnum):
    """Why the line does not get what it asked for; stays until a trigger is accepted or a reset."""

    NONE = 0
    MISSED_TRIGGER = 1
    OVERRUN = 2
    DEADLINE = 3
    STATION_LOST = 4
    PLC_SILENT = 5
    NO_RESULT_ACK = 6


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the PLC shows.

    Attributes:
        connected: the carrier hears a PLC at all.
        trigger: a part is in place; held until it is acknowledged.
        result_ack: the result was taken; held until result valid falls.
        reset: a rising edge clears the error code and a latched inhibit.
        heartbeat: any change is a sign of life.
        part: the PLC's own number of the part, 0..65535; it comes back with the result.
    """

    connected: bool = False
    trigger: bool = False
    result_ack: bool = False
    reset: bool = False
    heartbeat: int = 0
    part: int = 0


@dataclass(frozen=True, slots=True)
class Signals:
    """What the PLC sees; the default is the safe state.

    Attributes:
        ready: a trigger will be accepted.
        trigger_ack: the trigger was taken; falls when the trigger falls.
        busy: an accepted part has no result yet.
        result_valid: ``ok``, ``ng``, ``unsure`` and ``part`` hold for the part triggered last.
        ok: the part is good; never true without ``result_valid``.
        ng: the part is to be rejected; also for an unsure one.
        unsure: people should look: it was rejected without proof of a defect.
        inhibit: no part may be let through as good.
        part: the PLC's number of the part that the result is for.
        error: see ``Code``.
        missed, overruns: triggers so far that were not accepted, modulo 65536.
        heartbeat: counts up modulo 65536 while the guard lives.
        seen_ns: when the part that the result is for was seen; for the timing of pulses, not sent.
    """

    ready: bool = False
    trigger_ack: bool = False
    busy: bool = False
    result_valid: bool = False
    ok: bool = False
    ng: bool = False
    unsure: bool = False
    inhibit: bool = True
    part: int = 0
    error: Code = Code.NONE
    missed: int = 0
    overruns: int = 0
    heartbeat: int = 0
    seen_ns: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """How long each side may take, nanoseconds."""

    deadline_ns: int = 500 * NS_PER_MS
    ack_ns: int = 1000 * NS_PER_MS
    plc_silent_ns: int = 400 * NS_PER_MS
    station_silent_ns: int = 400 * NS_PER_MS
    heartbeat_ns: int = 100 * NS_PER_MS
