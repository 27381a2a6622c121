"""The gate: a guard process that owns the line's outputs, and the station's end of the wire to it.

The guard outlives a station that is killed: it goes on showing the safe state, gives every open
trigger its UNSURE, and tells the next station what was decided without it.
"""
