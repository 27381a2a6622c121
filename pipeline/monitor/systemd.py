"""Tell systemd that the station is up, what it does, and that it makes progress.

The protocol is sd_notify(3): datagrams to the socket that NOTIFY_SOCKET names. Without that
variable nothing happens.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

from pipeline.clock import NS_PER_S

PINGS_PER_DEADLINE = 4


class Notifier:
    """Sends datagrams to systemd; a socket that is away is no fault of the station."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the null byte of Linux' abstract addresses.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        usec = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._every_ns = int(usec) * 1000 // PINGS_PER_DEADLINE if usec.isdigit() and ours else 0
        self._pinged_ns: int | None = None

    def tell(self, *lines: str) -> None:
        """Send assignments such as ``READY=1``."""
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            out.sendto("\n".join(lines).encode(), self._address)

    def ping(self, now_ns: int) -> None:
        """Send WATCHDOG=1, as often as the deadline asks for; to be called on progress alone."""
        if not self._every_ns:
            return
        if self._pinged_ns is None or now_ns - self._pinged_ns >= self._every_ns:
            self._pinged_ns = now_ns
            self.tell("WATCHDOG=1")

    @property
    def deadline_s(self) -> float:
        """Return systemd's deadline for a ping, 0 if it has none."""
        return self._every_ns * PINGS_PER_DEADLINE / NS_PER_S
