"""The demo's broker in a process of its own, so that it can be killed: ``-m ... PORT``."""

import sys
import threading

from pipeline.publishers._broker import DemoBroker

if __name__ == "__main__":
    with DemoBroker(int(sys.argv[1])):
        threading.Event().wait()
