"""The conversation with the line's PLC: pure data and functions, the same for every carrier."""
