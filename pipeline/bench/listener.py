"""A subscriber in a process of its own: ``-m pipeline.bench.listener PORT FILE``.

It writes the id of each inspection and the monotonic time of its arrival, a line each.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pipeline.chaos.line import HOST
from pipeline.plugins import vendor

READY = "ready"


def listen(port: int, file: Path) -> None:
    """Subscribe to every inspection and write down when it came, until the process is ended."""
    mqtt = vendor("paho.mqtt.client", "demo")
    out = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)

    def arrived(client: Any, userdata: Any, message: Any) -> None:
        t_ns = time.monotonic_ns()
        if message.topic.endswith("/inspection"):
            os.write(out, f"{json.loads(message.payload)['id']} {t_ns}\n".encode())

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.on_connect = lambda client, *_: client.subscribe("lineguard/v1/#", qos=1)
    client.on_subscribe = lambda *_: os.write(out, f"{READY} 0\n".encode())
    client.on_message = arrived
    client.connect(HOST, port, keepalive=60)
    client.loop_start()
    threading.Event().wait()


def arrivals(file: Path) -> dict[str, int]:
    """Return the monotonic time of arrival by id, ns; ``READY`` once it listens."""
    if not file.exists():
        return {}
    rows = (line.split() for line in file.read_text(encoding="utf-8").splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2}


if __name__ == "__main__":
    listen(int(sys.argv[1]), Path(sys.argv[2]))
