"""How many records a second a slow disk takes: fsync held back by 30 ms, as an eMMC does.

    python -m tests.perf.slow_disk [MILLISECONDS]

It needs gcc: a small library between the process and the disk makes every fsync and fdatasync slow.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from pipeline.handoff import Handoff
from pipeline.keeping import DECISIONS_WAITING
from pipeline.store import Ledger
from tests.perf.backlog import draft

COUNT = 6000
SLOW = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
typedef int (*sync_fn)(int);
int fsync(int fd) { usleep(DELAY_US); return ((sync_fn)dlsym(RTLD_NEXT, "fsync"))(fd); }
int fdatasync(int fd) { usleep(DELAY_US); return ((sync_fn)dlsym(RTLD_NEXT, "fdatasync"))(fd); }
"""


def write(folder: Path) -> None:
    """Keep records as a station does that decides faster than the disk commits."""
    ledger = Ledger(folder, ["mqtt"])
    ledger.append([draft])
    decisions: Handoff[int] = Handoff(DECISIONS_WAITING)

    def decide() -> None:
        for n in range(COUNT):
            decisions.put(n)
        decisions.close()

    threading.Thread(target=decide).start()
    slowest, began, cpu = 0.0, time.monotonic(), time.process_time()
    while batch := decisions.take(DECISIONS_WAITING):
        start = time.monotonic()
        ledger.append([draft] * len(batch))
        slowest = max(slowest, time.monotonic() - start)
    seconds = time.monotonic() - began
    ledger.close()
    figures = {
        "records_per_s": round(COUNT / seconds),
        "cpu_ms_per_record": round((time.process_time() - cpu) / COUNT * 1e3, 3),
        "slowest_commit_ms": round(slowest * 1e3),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


def main(delay_ms: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source, library = Path(scratch) / "slow.c", Path(scratch) / "slow.so"
        source.write_text(SLOW.replace("DELAY_US", str(delay_ms * 1000)))
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True
        )
        subprocess.run(
            [sys.executable, "-m", "tests.perf.slow_disk", "--write", f"{scratch}/store"],
            env={**os.environ, "LD_PRELOAD": str(library)},
            check=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(Path(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
