"""Health of a station: its state, its figures, and a watchdog that wants real progress."""
