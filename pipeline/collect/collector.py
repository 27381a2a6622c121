"""Reads the stations' topics, commits what comes, and answers each station what is committed."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from pipeline.collect.archive import Archive, Taken
from pipeline.collect.arrival import Arrival, read_arrival, source_of
from pipeline.errors import ArchiveAway, ConfigError, DiskFull
from pipeline.handoff import Handoff
from pipeline.link import Link
from pipeline.publishers.mqtt import Options as BrokerOptions

LOG = logging.getLogger(__name__)

RECEIVE_MAXIMUM = 256
SESSION_S = 24 * 3600
WAIT_S = 0.2
NO_ROOM_S = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """Whom to listen to, and under which name.

    Attributes:
        name: of the collector; the stations' ``collector`` names it.
        broker: how to reach the broker; of the keys, those of the connection count.
    """

    name: str
    broker: BrokerOptions


@dataclass(frozen=True, slots=True)
class _Message:
    topic: str
    payload: bytes
    mid: int
    connection: int


@dataclass(slots=True)
class Counts:
    """What came in since the start."""

    new: int = 0
    repeated: int = 0
    conflicts: int = 0
    dead_letters: int = 0


class Collector:
    """Takes records until it is told to stop.

    The session outlives a restart, and a message is confirmed to the broker only after the commit:
    what was under way when the collector died comes again. What the broker itself loses comes
    again from the station, which keeps each record until it has a receipt.

    Attributes:
        counts: what came in.
    """

    def __init__(self, options: Options, archive: Archive) -> None:
        self.counts = Counts()
        self._options = options
        self._archive = archive
        self._topics = f"{options.broker.root}/v1/+/+/+/+/+/inspection"
        self._inbox: Handoff[_Message] = Handoff(4 * RECEIVE_MAXIMUM)
        self._stopping = threading.Event()
        self._connection = 0
        self._link = Link(
            options.broker,
            f"lineguard-collect.{options.name}",
            connected=self._connected,
            heard=self._heard,
            manual_ack=True,
        )

    def run(self) -> Counts:
        """Collect until ``stop``; the broker need not be there yet.

        Raises:
            StoreError: the archive cannot be written, for another reason than a full disk.
        """
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        session.SessionExpiryInterval = SESSION_S
        session.ReceiveMaximum = RECEIVE_MAXIMUM
        self._link.start(clean=False, properties=session)
        try:
            while not self._stopping.is_set():
                if batch := self._inbox.take(RECEIVE_MAXIMUM, WAIT_S):
                    self._take(batch)
        finally:
            self._inbox.close()
            self._link.leave()
        return self.counts

    def stop(self) -> None:
        """End ``run``; any thread."""
        self._stopping.set()

    def _take(self, batch: list[_Message]) -> None:
        arrivals = [a for message in batch if (a := self._read(message)) is not None]
        taken = self._committed(arrivals)
        if taken is None:
            return
        self.counts.new += taken.new
        self.counts.repeated += taken.repeated
        for arrival in taken.conflicts:
            self._conflict(arrival)
        for message in batch:
            if message.connection == self._connection:
                self._link.client.ack(message.mid, qos=1)
        for source, receipt in taken.receipts:
            topic = f"{self._options.broker.root}/v1/{source}/ack/{self._options.name}"
            if self._link.client.is_connected():
                self._link.client.publish(topic, receipt.as_json(), qos=1)

    def _committed(self, arrivals: list[Arrival]) -> Taken | None:
        """Commit; while there is no room, or no server, try again and answer nobody.

        Returns:
            None once it is stopped.
        """
        while not self._stopping.is_set():
            try:
                return self._archive.add(arrivals)
            except (ArchiveAway, DiskFull) as error:
                LOG.error("%s; records wait at the broker and the stations", error)
                self._stopping.wait(NO_ROOM_S)
        return None

    def _read(self, message: _Message) -> Arrival | None:
        try:
            return read_arrival(
                source_of(message.topic, self._options.broker.root), message.payload
            )
        except ConfigError as error:
            self._set_aside(message.topic, str(error), message.payload)
            return None

    def _conflict(self, arrival: Arrival) -> None:
        """Keep a second record of the same number apart: no receipt, no overwriting."""
        r = arrival.record
        self.counts.conflicts += 1
        why = f"run {r.run}, number {r.seq}: another record of this number was collected before"
        self._set_aside(arrival.source, why, arrival.body)

    def _set_aside(self, topic: str, why: str, payload: bytes) -> None:
        self.counts.dead_letters += 1
        LOG.error("'%s': %s; it is among the dead letters of the archive", topic, why)
        self._archive.set_aside(topic, why, payload)

    # Called by the connection's thread: nothing below may raise.

    def _connected(self, limits: Properties | None) -> None:
        del limits
        self._connection += 1
        self._link.subscribe(self._topics)

    def _heard(self, message: paho.MQTTMessage) -> None:
        """Wait while the inbox is full: what is read slower than it comes stays at the broker."""
        self._inbox.put(
            _Message(message.topic, bytes(message.payload), message.mid, self._connection)
        )
