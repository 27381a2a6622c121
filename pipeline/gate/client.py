"""The station's end of the gate: finds or starts the guard, and is an Output like any other."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pipeline.clock import NS_PER_MS
from pipeline.errors import ConfigError, LineguardError, OutputError
from pipeline.gate.wire import LOG, Lines, Message, Spec, packed, short_path
from pipeline.types import Decision, Inspection, Verdict

ANSWER_S, ANSWER_PATIENCE = 0.05, 8
"""How long an answer may take, in slices: a process that was halted finds one slice over when it
goes on, while the answer that came meanwhile still has to be read."""

BEAT_S = 0.1
OPEN_S = 120.0
"""An OPC UA server takes 2 s to start on a free x86 core, and many times that on a busy one."""


class Gate:
    """Hands every verdict to the guard and learns what the line got.

    Args:
        spec: the outputs and times of the guard.
        folder: of the store; it must exist.
        run: names this start of the station.
        on_trigger: told of each trigger of the PLC: number, time, and the decision if the guard
            already made one; from a thread of the gate.
        was_recorded: tells whether an earlier run has recorded a part (run, number): a station
            that is killed between its ledger's commit and its word to the guard has done both.

    Raises:
        ConfigError: an output could not be opened as it was named.
        OutputError: another station uses this store, or the guard does not answer.
    """

    def __init__(
        self,
        spec: Spec,
        folder: Path,
        run: str = "",
        on_trigger: Callable[[int, int, Decision | None], None] = lambda n, t_ns, decision: None,
        was_recorded: Callable[[str, int], bool] = lambda run, part: False,
    ) -> None:
        self._spec = spec
        self._run = run
        self._on_trigger = on_trigger
        self._was_recorded = was_recorded
        self._ready = False
        self._lost: OutputError | None = None
        self._on_lost: Callable[[OutputError], None] = lambda error: None
        self._on_line: Callable[[str | None], None] = lambda fault: None
        self._line_fault: str | None = None
        self._closing = False
        self._answers: dict[int, Decision] = {}
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._connection = _attached(spec, folder, run)
        self._stopped = threading.Event()
        for name, loop in (("gate-hear", self._hear), ("gate-beat", self._beat)):
            threading.Thread(target=loop, name=name, daemon=True).start()

    def watch(
        self, on_lost: Callable[[OutputError], None], on_line: Callable[[str | None], None]
    ) -> None:
        """Have somebody told, from any thread, of what happens beyond the gate.

        Args:
            on_lost: once the line cannot be reached any more.
            on_line: when the PLC is silent or has stopped the line, why; None when it is well.
        """
        with self._changed:
            self._on_lost, self._on_line = on_lost, on_line
            fault = self._line_fault
        on_line(fault)
        if self._lost is not None:
            on_lost(self._lost)

    def act(self, inspection: Inspection) -> Decision | None:
        part, said = inspection.part.id, inspection.decision
        seen_ns = inspection.stamps["exposed"]
        self._send({"do": "judge", "part": part, "verdict": said.verdict.value, "seen_ns": seen_ns})
        got = self._answer(part)
        if got.verdict is said.verdict:
            return None
        late_ms = (time.monotonic_ns() - seen_ns) // NS_PER_MS
        true = f"the station said {said.verdict.value} after {late_ms} ms"
        return Decision(got.verdict, (*got.reasons, true, *said.reasons))

    def ready(self, is_ready: bool) -> None:
        self._ready = is_ready
        if not self._closing:
            self._send({"do": "alive", "ready": is_ready})

    def recorded(self, part: int) -> None:
        """Tell the guard that a part is in the ledger; it need not remember it any more."""
        with suppress(OutputError):  # Whoever watches is told; the ledger has what it needs.
            self._send({"do": "recorded", "part": part})

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._stopped.set()
        with suppress(OutputError):
            self._send({"do": "bye"})
        self._connection.close()

    def _answer(self, part: int) -> Decision:
        with self._changed:
            for _ in range(ANSWER_PATIENCE):
                if self._changed.wait_for(lambda: part in self._answers or self._lost, ANSWER_S):
                    break
            if part in self._answers:
                return self._answers.pop(part)
        error = self._lost or OutputError(
            f"gate: the guard did not answer within {ANSWER_S * ANSWER_PATIENCE:.1f} s; see {LOG}"
        )
        self._lose(error)
        raise error

    def _send(self, message: Message) -> None:
        if self._lost is not None:
            raise self._lost
        try:
            with self._sending:
                self._connection.sendall(packed(message))
        except OSError as error:
            self._lose(OutputError(f"gate: the guard is gone ({error}); start the station again"))
            raise self._lost or OutputError(str(error)) from error

    def _hear(self) -> None:
        lines = Lines(self._connection)
        try:
            while True:
                for message in lines.receive():
                    self._take(message)
        except (OSError, KeyError, ValueError) as error:
            self._lose(OutputError(f"gate: the guard is gone ({error}); start the station again"))

    def _take(self, message: Message) -> None:
        if message["is"] == "taken":
            with self._changed:
                self._answers[message["part"]] = _decision(message)
                self._changed.notify_all()
        elif message["is"] == "trigger":
            self._triggered(message)
        elif message["is"] == "line":
            with self._changed:
                self._line_fault, told = message["fault"], self._on_line
            told(self._line_fault)
        elif message["is"] == "fault":
            self._lose(OutputError(message["said"]))

    def _triggered(self, message: Message) -> None:
        if message["run"] != self._run and self._was_recorded(message["run"], message["part"]):
            self.recorded(message["number"])
            return
        decision = _decision(message) if message["verdict"] else None
        self._on_trigger(message["number"], message["t_ns"], decision)

    def _beat(self) -> None:
        while not self._stopped.wait(BEAT_S):
            try:
                self._send({"do": "alive", "ready": self._ready})
            except OutputError:
                return

    def _lose(self, error: OutputError) -> None:
        with self._changed:
            if self._closing or self._lost is not None:
                return
            self._lost = error
            self._changed.notify_all()
            told = self._on_lost
        told(error)


def is_guarded(folder: Path) -> bool:
    """Tell whether a guard serves this store now: one that a killed station has left."""
    connection = connected(folder)
    if connection is not None:
        connection.close()
    return connection is not None


def _decision(message: Message) -> Decision:
    return Decision(Verdict(message["verdict"]), (str(message["reason"]),))


def _attached(spec: Spec, folder: Path, run: str) -> socket.socket:
    """Return a connection to a guard that has this spec; start one if there is none."""
    deadline = time.monotonic() + OPEN_S
    while time.monotonic() < deadline:
        connection = connected(folder)
        if connection is None:
            _start_guard(spec, folder)
            continue
        attach = {"do": "attach", "spec": spec.model_dump_json(), "run": run}
        answer = _asked(connection, attach)
        if answer == "attached":
            connection.settimeout(None)
            return connection
        connection.close()
        if answer == "busy":
            raise OutputError(f"{folder}: another station runs on this store; stop it first")
        time.sleep(0.02)  # A guard with other outputs is making room.
    raise OutputError(f"{folder}: the guard of the gate does not answer; see {folder / LOG}")


def connected(folder: Path) -> socket.socket | None:
    """Return a connection to the guard of a store, or None if there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(2.0)
    try:
        with short_path(folder) as path:
            connection.connect(path)
    except OSError:
        connection.close()
        return None
    return connection


def _asked(connection: socket.socket, message: Message) -> str:
    try:
        connection.sendall(packed(message))
        # Only the one answer: what follows it belongs to whoever reads on.
        line = b""
        while not line.endswith(b"\n") and (byte := connection.recv(1)):
            line += byte
        return str(json.loads(line)["is"])
    except (OSError, ValueError, KeyError):
        return "gone"


def _start_guard(spec: Spec, folder: Path) -> None:
    """Start a guard that lives on when this process is killed.

    Raises:
        LineguardError: it could not open an output; the message is the guard's own.
    """
    with (folder / LOG).open("ab") as log:
        guard = subprocess.Popen(
            [sys.executable, "-m", "pipeline.gate", str(folder.resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    assert guard.stdin is not None
    assert guard.stdout is not None
    with guard.stdin, guard.stdout:
        guard.stdin.write(spec.model_dump_json().encode())
        guard.stdin.close()
        said, _, _ = select.select([guard.stdout], [], [], OPEN_S)
        line = guard.stdout.readline() if said else b""
    if not line:
        guard.kill()
        raise OutputError(f"{folder}: the guard of the gate did not start; see {folder / LOG}")
    answer = json.loads(line)
    if "error" in answer:
        guard.wait()
        raise _error_of(answer)


def _error_of(answer: Message) -> LineguardError:
    said = str(answer["error"])
    return ConfigError(said) if answer["exit_code"] == ConfigError.exit_code else OutputError(said)
