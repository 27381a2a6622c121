"""The dashboard: a process of its own that reads the ledger and the window of a station."""
