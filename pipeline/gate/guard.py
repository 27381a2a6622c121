"""The guard: one loop that lets the line, the station and time meet in the handshake machine."""

from __future__ import annotations

import logging
import selectors
import socket
from collections.abc import Sequence

from pipeline.clock import Clock
from pipeline.errors import OutputError
from pipeline.gate.wire import Lines, Message, Spec, packed
from pipeline.outputs import Carrier
from pipeline.plc.handshake import (
    Alive,
    Attached,
    Case,
    Detached,
    Event,
    Found,
    Judged,
    Line,
    Phase,
    Recorded,
    State,
    signals,
    step,
)
from pipeline.plc.signals import Inputs, Signals
from pipeline.types import Verdict

log = logging.getLogger(__name__)

TURN_S = 0.004


class Guard:
    """Shows the machine's signals on every carrier and serves one station after the other.

    Args:
        carriers: all that show; ``leading`` is the place of the one whose inputs count, or None.
        listener: the local socket, listening.
    """

    def __init__(
        self,
        spec: Spec,
        carriers: Sequence[Carrier],
        leading: int | None,
        listener: socket.socket,
        clock: Clock,
    ) -> None:
        self._spec = spec
        self._carriers = carriers
        self._leading = leading
        self._listener = listener
        self._clock = clock
        self._state = State(timing=spec.timing)
        self._shown = Signals()
        self._station: socket.socket | None = None
        self._lines: dict[socket.socket, Lines] = {}
        self._told: dict[int, str] = {}
        self._faults: dict[int, str] = {}
        self._line_told: str | None = None
        self._beat = 0
        self._ending = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until a station says good-bye or ``stop`` is called."""
        while not self._ending:
            for key, _ in self._selector.select(TURN_S):
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket):
                    self._hear(key.fileobj)
            self._exchange()
            self._announce()
        for carrier in self._carriers:
            carrier.close()

    def stop(self) -> None:
        """End after this turn, in the safe state."""
        self._ending = True

    # -- the line -----------------------------------------------------------------------------

    def _exchange(self) -> None:
        """Show what holds now on every carrier, and take in what the leading one shows."""
        now_ns = self._clock.now_ns()
        seen = self._by_itself()
        show = signals(self._state)
        if self._faults:
            # An output that is lost makes every other one safe.
            show = Signals(heartbeat=show.heartbeat, error=show.error, part=show.part)
        for i, carrier in enumerate(self._carriers):
            try:
                inputs = carrier.exchange(show, now_ns)
                if self._faults.pop(i, None):
                    log.warning("output %d: well again", i)
            except OutputError as error:
                inputs = Inputs()
                self._fault(i, str(error))
            seen = inputs if i == self._leading else seen
        self._log_changes(show)
        self._happened(Line(now_ns, seen if not self._faults else Inputs()))

    def _by_itself(self) -> Inputs:
        """Stand in for a PLC where none leads: every result is taken in the next turn."""
        self._beat = (self._beat + 1) % 65536
        return Inputs(True, result_ack=self._state.phase is Phase.RESULT, heartbeat=self._beat)

    def _fault(self, output: int, said: str) -> None:
        if output not in self._faults:
            log.error("output %d: %s", output, said)
        self._faults[output] = said
        self._tell({"is": "fault", "said": said})

    def _log_changes(self, show: Signals) -> None:
        for name in ("ready", "inhibit", "error"):
            if getattr(show, name) != getattr(self._shown, name):
                log.info("%s: %s", name, getattr(show, name))
        self._shown = show

    def _happened(self, event: Event) -> None:
        self._state = step(self._state, event)

    # -- the station --------------------------------------------------------------------------

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        # A station that is halted reads nothing: the guard must not wait for it, but drop it.
        connection.setblocking(False)
        self._lines[connection] = Lines(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def _hear(self, connection: socket.socket) -> None:
        try:
            for message in self._lines[connection].receive():
                self._obey(connection, message)
        except (ConnectionError, KeyError, TypeError, ValueError) as error:
            log.warning("station: %s", error)
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        if self._lines.pop(connection, None) is None:
            return
        self._selector.unregister(connection)
        connection.close()
        if connection is self._station:
            self._station = None
            self._happened(Detached(self._clock.now_ns()))

    def _obey(self, connection: socket.socket, message: Message) -> None:
        if message["do"] == "attach":
            self._attach(connection, message["spec"], str(message["run"]))
            return
        if connection is not self._station:
            raise ValueError(f"{message['do']} before attach")
        now_ns = self._clock.now_ns()
        if message["do"] == "alive":
            self._happened(Alive(now_ns, message["ready"]))
        elif message["do"] == "judge":
            self._judge(now_ns, message)
        elif message["do"] == "recorded":
            self._happened(Recorded(now_ns, message["part"]))
        elif message["do"] == "bye":
            self._ending = True
        else:
            raise ValueError(f"there is no '{message['do']}'")

    def _attach(self, connection: socket.socket, spec: str, run: str) -> None:
        if self._station is not None:
            connection.sendall(packed({"is": "busy"}))
        elif Spec.model_validate_json(spec) != self._spec:
            log.info("a station with other outputs comes; this guard makes room")
            connection.sendall(packed({"is": "other"}))
            self._ending = True
        else:
            self._station = connection
            self._told.clear()
            self._line_told = None
            self._happened(Attached(self._clock.now_ns(), run))
            self._tell({"is": "attached"})

    def _judge(self, now_ns: int, message: Message) -> None:
        """Take a verdict, show it at once, and answer with what the line got."""
        part, verdict = message["part"], Verdict(message["verdict"])
        if self._spec.triggered:
            self._happened(Judged(now_ns, part, verdict))
            case = self._state.case(part)
            got, reason = (case.verdict, case.reason) if case else (None, "")
        else:
            got, reason = self._found(now_ns, message["seen_ns"], part, verdict)
        self._tell(
            {"is": "taken", "part": part, "verdict": (got or Verdict.UNSURE).value,
             "reason": reason or "no trigger was open for it"}
        )  # fmt: skip
        self._exchange()

    def _found(self, now_ns: int, seen_ns: int, part: int, verdict: Verdict) -> tuple[Verdict, str]:
        late_ms = (now_ns - seen_ns) // 1_000_000
        if late_ms >= self._spec.deadline_ms:
            return Verdict.UNSURE, f"no verdict within {self._spec.deadline_ms} ms"
        if self._state.inhibited:
            return Verdict.UNSURE, "the line was inhibited"
        self._happened(Found(now_ns, seen_ns, part, verdict))
        return verdict, "taken"

    def _announce(self) -> None:
        """Tell the station how the line is, of new triggers, and of those decided without it."""
        if self._station is None:
            return
        if (fault := self._line_fault()) != self._line_told:
            self._line_told = fault
            self._tell({"is": "line", "fault": fault})
        for case in self._state.cases:
            news = "open" if case.verdict is None else "decided"
            if self._told.get(case.number) == news or (case.answered and case.number in self._told):
                continue
            self._told[case.number] = news
            self._tell(_announcement(case))
        known = {c.number for c in self._state.cases}
        self._told = {n: news for n, news in self._told.items() if n in known}

    def _line_fault(self) -> str | None:
        if not self._state.plc_alive:
            return "the PLC is silent: its heartbeat stands still; does its program run?"
        if self._state.latched:
            return "the PLC did not acknowledge a result; the line stands until its reset"
        return None

    def _tell(self, message: Message) -> None:
        if self._station is None:
            return
        try:
            self._station.sendall(packed(message))
        except OSError as error:
            log.warning("station: %s", error)
            self._drop(self._station)


def _announcement(case: Case) -> Message:
    return {
        "is": "trigger",
        "number": case.number,
        "t_ns": case.t_ns,
        "run": case.origin[0],
        "part": case.origin[1],
        "verdict": case.verdict.value if case.verdict else None,
        "reason": case.reason or "the station ended before it had recorded this verdict",
    }
