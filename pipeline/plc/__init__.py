"""The conversation with the line's PLC: pure data and pure functions, the same for every carrier."""
