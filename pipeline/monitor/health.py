"""Publish the health of a station: to systemd, and over HTTP to probes and Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import Self

from pipeline.clock import NS_PER_S, Clock
from pipeline.monitor.figures import Snapshot
from pipeline.monitor.systemd import Notifier

if TYPE_CHECKING:
    from pipeline.monitor.probes import Server

STALE_S = 2.0
"""A station gives a snapshot 20 times a second; without one for so long, its main thread hangs."""


class Health:
    """Takes snapshots of a station and passes them on; close it last.

    Args:
        port: of the HTTP server; 0 takes a free one, None serves nothing.
        host: its address; what it tells is counts and states, and it takes no command.

    Raises:
        ConfigError: the port cannot be used.
        MissingExtra: a port is given, and the package ``prometheus_client`` is not installed.
    """

    def __init__(
        self,
        clock: Clock,
        port: int | None = None,
        host: str = "127.0.0.1",
        notifier: Notifier | None = None,
    ) -> None:
        self._clock = clock
        self._notifier = notifier or Notifier()
        self._snapshot = Snapshot(clock.now_ns())
        self._told: str | None = None
        self._server = None if port is None else self._served(host, port)

    @property
    def port(self) -> int | None:
        """The port that is served, or None."""
        return None if self._server is None else int(self._server.server_address[1])

    def loading(self, seconds: float) -> None:
        """Ask systemd for so long until the station is up; without, its unit's time counts alone.

        systemd takes the longer of the two.
        """
        self._notifier.tell(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", "STATUS=loading")

    def take(self, snapshot: Snapshot) -> None:
        """Take up what the station's main thread says of it; that thread calls this all the time.

        systemd's watchdog is fed here and nowhere else: a main thread that hangs, or a worker that
        does, starves it.
        """
        first, self._snapshot = self._told is None, snapshot
        if snapshot.state != self._told:
            self._told = snapshot.state
            self._notifier.tell(*(["READY=1"] if first else []), f"STATUS={snapshot.state}")
        if snapshot.state in ("stopping", "stopped"):
            self._notifier.tell("STOPPING=1")
        if not snapshot.frozen:
            self._notifier.ping(snapshot.t_ns)

    def alive(self) -> tuple[bool, str]:
        """Tell whether the station makes progress, and what it lacks."""
        snapshot = self._snapshot
        age_s = (self._clock.now_ns() - snapshot.t_ns) / NS_PER_S
        if snapshot.frozen:
            return False, f"frozen: {', '.join(snapshot.frozen)}"
        if self._told not in (None, "stopped") and age_s > STALE_S:
            return False, f"the main thread has said nothing for {age_s:.0f} s"
        return True, "alive"

    def snapshot(self) -> Snapshot:
        """Return the last snapshot."""
        return self._snapshot

    def close(self) -> None:
        """Stop serving; may be called twice."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _served(self, host: str, port: int) -> Server:
        # Loaded where it serves: HTTP brings a twentieth of what a start loads.
        from pipeline.monitor.probes import served

        return served(self, host, port)
