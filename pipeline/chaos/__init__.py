"""Faults on purpose: a demo line of real processes, what is done to it, and what it lost.

Nothing here takes the station's word for what it decided: the reject gate keeps its own journal.
"""
