"""The collector: takes records from the broker, commits them, and only then says so."""

from pipeline.collect.archive import Archive
from pipeline.collect.arrival import Arrival
from pipeline.collect.collector import Collector, Options
from pipeline.collect.sqlite import SqliteArchive

__all__ = ["Archive", "Arrival", "Collector", "Options", "SqliteArchive"]
