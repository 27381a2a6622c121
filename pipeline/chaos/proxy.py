"""A cable between station and broker that can be cut, go dead, be slow or be far away."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

from pipeline.chaos.line import HOST

CHUNK = 4096
NAP_S = 0.02


class Cable:
    """Carries bytes between whoever connects and a port of this machine; no root needed.

    Attributes:
        port: where it listens.
        is_dead: nothing passes, and nobody is told: a black hole.
        delay_s: added to every piece, each way.
        bytes_per_s: what passes a second each way; 0 is no limit.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.is_dead = False
        self.delay_s = 0.0
        self.bytes_per_s = 0
        self._is_cut = False
        self._ends: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections and refuse new ones."""
        self._is_cut = True
        for end in tuple(self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Carry again, at once and without limit."""
        self._is_cut = self.is_dead = False
        self.delay_s, self.bytes_per_s = 0.0, 0

    def close(self) -> None:
        """End everything."""
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                if self._is_cut:
                    near.close()
                    continue
                far = socket.create_connection((HOST, self._target))
            except ConnectionRefusedError:
                near.close()  # the broker is away
                continue
            except OSError:
                return
            self._ends |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(CHUNK):
                self._hold(len(data))
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self._ends -= {source, sink}

    def _hold(self, size: int) -> None:
        """Keep a piece for as long as the cable is slow, or until it is alive again."""
        time.sleep(self.delay_s)
        if self.bytes_per_s:
            time.sleep(size / self.bytes_per_s)
        while self.is_dead and not self._is_cut:
            time.sleep(NAP_S)
