"""The demo's broker in a process of its own, so that it can be killed: ``-m ... PORT``."""

import sys
import threading

from pipeline.demo_broker import DemoBroker

if __name__ == "__main__":
    with DemoBroker(int(sys.argv[1])):
        threading.Event().wait()
