"""Which message is on its way, confirmed or refused for good; the ledger is the only queue."""

import json
import logging
import os
import queue
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.clock import Clock, SystemClock
from pipeline.errors import PublishError
from pipeline.publishers import Address
from pipeline.publishers.mqtt.connection import Answer, Break, Connection
from pipeline.publishers.mqtt.options import Options
from pipeline.publishers.mqtt.pace import Pace
from pipeline.receipts import Receipt
from pipeline.schema import STOPPED, canonical, event_bytes, topic
from pipeline.types import Record, Verdict

LOG = logging.getLogger(__name__)

CONNECT_WAIT_S = 1.0
GOODBYE_S = 1.0
MAX_BREAKS = 5
STATE_PLACES = 4
PACKET_OVERHEAD_BYTES = 64
RECEIPTS_KEPT = 256

# MQTT 5 reason codes: packet too large, payload format invalid.
NEVER = (149, 153)
# The broker cut the line because of what it read, or gave no reason; a keep-alive that ran out, a
# broker that shuts down or a second client of the same name are not the message's fault.
MAY_BE_THE_MESSAGE = (128, 129, 130, 131, *NEVER)


@dataclass(frozen=True, slots=True)
class _Message:
    id: str
    topic: str
    payload: bytes


class MqttPublisher:
    """Publishes each record on ``inspection`` until it is confirmed.

    The broker confirms it, or, if the options name one, the collector by a receipt. While the
    collector is silent only the oldest record is repeated, so that its return is noticed.
    """

    def __init__(self, options: Options, address: Address, clock: Clock | None = None) -> None:
        self._options = options
        self._address = address
        self._in_flight: dict[int, _Message] = {}
        self._done: set[_Message] = set()
        self._breaks: dict[_Message, int] = {}
        self._set_aside: set[str] = set()
        self._one_by_one = False
        self._closed = False
        self._receipts: deque[Receipt] = deque(maxlen=RECEIPTS_KEPT)
        self._collector_is_silent = False
        self._pace = Pace(options.catch_up_per_s, clock or SystemClock())
        name = options.client_id or f"lineguard.{address.path.replace('/', '.')}"
        receipts = self._topic(f"ack/{options.collector}") if options.collector else None
        self._connection = Connection(options, name, self._topic("state"), receipts)

    @property
    def trouble(self) -> str:
        return "" if self._closed or not self._connection.was_tried else self._connection.trouble

    def send(self, records: Sequence[Record]) -> tuple[str, ...]:
        if self._closed or not self._connection.wait(CONNECT_WAIT_S):
            raise PublishError(self._connection.trouble)
        self._take_notes()
        if received := self._received(records):
            return received
        records = records[:1] if self._collector_is_silent else records
        self._pace.wait(len(records))
        events = {r.id: event_bytes(r, self._address) for r in records}
        if refused := self._refuse_large(events):
            return refused
        try:
            self._deliver_all(records, events)
            self._await_receipts(records)
        except PublishError as error:
            if not (settled := self._settled(records)):
                raise
            LOG.warning("%s", error)
            return settled
        return self._settled(records)

    def state(self, state: Mapping[str, Any]) -> None:
        self._take_notes()
        try:
            payload = json.dumps(state, sort_keys=True, default=str).encode()
        except (TypeError, ValueError) as error:
            LOG.error("mqtt: the state cannot be written as JSON: %s", error)
            return
        self._connection.state(payload)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._connection.close(canonical(STOPPED), GOODBYE_S)

    def _topic(self, leaf: str) -> str:
        if self._options.topic is not None:
            return self._options.topic.replace("{leaf}", leaf)
        return topic(self._options.root, self._address, leaf)

    def _deliver_all(self, records: Sequence[Record], events: Mapping[str, bytes]) -> None:
        """Send copies for ``defect`` first: a refusal there must not repeat ``inspection``."""
        inspection, defect = self._topic("inspection"), self._topic("defect")
        if self._options.defect_topic:
            bad = (r.id for r in records if r.verdict is not Verdict.PASS)
            self._deliver([_Message(id_, defect, events[id_]) for id_ in bad])
        self._deliver([_Message(r.id, inspection, events[r.id]) for r in records])
        self._one_by_one = False

    def _settled(self, records: Sequence[Record]) -> tuple[str, ...]:
        """Return the ids that are done on ``inspection``, and forget them.

        With a collector, what it has not received is forgotten too: it is published again.
        """
        inspection = self._topic("inspection")
        done = {message.id for message in self._done if message.topic == inspection}
        if self._options.collector is not None:
            self._done -= {message for message in self._done if message.id in done}
            done = {*self._received(records), *(done & self._set_aside)}
        settled = tuple(record.id for record in records if record.id in done)
        self._done = {message for message in self._done if message.id not in settled}
        self._set_aside.difference_update(settled)
        return settled

    def _received(self, records: Sequence[Record]) -> tuple[str, ...]:
        """Return the ids of the records that the collector says it has."""
        return tuple(r.id for r in records if any(n.covers(r.run, r.seq) for n in self._receipts))

    def _await_receipts(self, records: Sequence[Record]) -> None:
        """Wait until the collector has all of these.

        Raises:
            PublishError: it has not said so in time, or the connection broke.
        """
        if self._options.collector is None:
            return
        wanted = [r for r in records if r.id not in self._set_aside]
        deadline = time.monotonic() + self._options.confirm_s
        while len(self._received(wanted)) < len(wanted):
            try:
                self._await_note(deadline)
            except queue.Empty:
                self._collector_is_silent = not self._received(wanted)
                raise PublishError(
                    f"{self._connection.where}: the collector '{self._options.collector}' has not "
                    f"acknowledged within {self._options.confirm_s} s; is it running?"
                ) from None

    def _deliver(self, messages: Sequence[_Message]) -> None:
        """Publish what is neither confirmed nor on its way, and wait for all of it.

        Raises:
            PublishError: a message was refused, not confirmed in time, or the connection broke.
        """
        deadline = time.monotonic() + self._options.confirm_s
        on_their_way = set(self._in_flight.values())
        waiting = deque(m for m in messages if m not in self._done and m not in on_their_way)
        mine = set(messages)
        while waiting or not mine.isdisjoint(self._in_flight.values()):
            while waiting and len(self._in_flight) < self._window():
                message = waiting.popleft()
                mid = self._connection.publish(message.topic, message.payload)
                self._in_flight[mid] = message
            try:
                self._await_note(deadline)
            except queue.Empty:
                raise PublishError(
                    f"{self._connection.where} has not confirmed within "
                    f"{self._options.confirm_s} s; is it overloaded?"
                ) from None

    def _window(self) -> int:
        """Return how many may be in flight; some of the broker's places are left to the state."""
        broker = max(1, self._connection.receive_maximum - STATE_PLACES)
        return 1 if self._one_by_one else min(self._options.in_flight, broker)

    def _await_note(self, deadline: float) -> None:
        """Take the next note into account.

        Raises:
            queue.Empty: there was none in time.
            PublishError: it makes trouble for a record.
        """
        note = self._connection.notes.get(timeout=max(0.0, deadline - time.monotonic()))
        if trouble := self._note(note):
            raise PublishError(trouble)

    def _take_notes(self) -> None:
        """Read what was left since the last call."""
        while not self._connection.notes.empty():
            self._note(self._connection.notes.get())

    def _note(self, note: Answer | Break | Receipt) -> str:
        """Take one note into account; return the trouble it makes for a record, or ''."""
        if isinstance(note, Receipt):
            self._receipts.append(note)
            self._collector_is_silent = False
            return ""
        return self._broken(note) if isinstance(note, Break) else self._answered(note)

    def _answered(self, answer: Answer) -> str:
        message = self._in_flight.pop(answer.mid, None)
        if message is None:
            self._state_answered(answer)
            return ""
        if answer.refused and answer.reason not in NEVER:
            return self._refusal(message.topic, answer)
        if answer.refused:
            self._give_up(message.id, message.payload, f"refuses it: {answer.said}")
        self._is_done(message)
        return ""

    def _state_answered(self, answer: Answer) -> None:
        if answer.refused:
            LOG.warning("%s", self._refusal(self._topic("state"), answer))

    def _refusal(self, refused: str, answer: Answer) -> str:
        return (
            f"{self._connection.where} refused topic '{refused}': {answer.said}; "
            f"grant this station to write '{self._topic('#')}', or raise its quota"
        )

    def _broken(self, end: Break) -> str:
        """Forget what was in flight; find the message that makes the broker hang up.

        A broker may answer a message it dislikes by closing the connection, each time (iotcore
        above its payload limit; mosquitto's ``message_size_limit``, whose answer paho takes for a
        protocol error). After a break messages go one by one, so that it shows which one it is.
        """
        lost = tuple(self._in_flight.values())
        self._in_flight.clear()
        if lost:
            self._one_by_one = True
        if len(lost) == 1 and end.reason in MAY_BE_THE_MESSAGE:
            self._count_break(lost[0], end)
        return f"{self._connection.where}: the connection was lost ({end.said}); it is tried again"

    def _count_break(self, message: _Message, end: Break) -> None:
        breaks = self._breaks.get(message, 0) + 1
        self._breaks[message] = breaks
        if breaks >= MAX_BREAKS or end.reason in NEVER:
            self._give_up(message.id, message.payload, f"hangs up on it ({end.said})")
            self._is_done(message)

    def _is_done(self, message: _Message) -> None:
        self._done.add(message)
        self._breaks.pop(message, None)

    def _refuse_large(self, events: Mapping[str, bytes]) -> tuple[str, ...]:
        overhead = PACKET_OVERHEAD_BYTES + len(self._topic("inspection"))
        limit = min(self._options.max_payload_bytes, self._connection.max_packet_bytes - overhead)
        large = {id_: payload for id_, payload in events.items() if len(payload) > limit}
        for id_, payload in large.items():
            self._give_up(id_, payload, f"takes {limit} bytes, it has {len(payload)}")
        self._set_aside.difference_update(large)
        return tuple(large)

    def _give_up(self, id_: str, payload: bytes, why: str) -> None:
        """Set an event aside that the broker will never take; the ledger has it anyway."""
        self._set_aside.add(id_)
        file = self._options.dead_letter
        LOG.error(
            "record %s is not published: %s %s; it stays in the ledger%s",
            id_,
            self._connection.where,
            why,
            f" and in {file}" if file else "",
        )
        if file is None:
            return
        try:
            with file.open("ab", buffering=0) as stream:
                stream.write(payload + b"\n")
                os.fsync(stream.fileno())
        except OSError as error:
            LOG.error("%s: %s; record %s is in the ledger only", file, error.strerror, id_)
