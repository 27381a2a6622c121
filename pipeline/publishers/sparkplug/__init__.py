"""Records as metrics of a Sparkplug 3.0 edge node; docs/sparkplug.md is its manual."""

from pipeline.publishers import Address
from pipeline.publishers.sparkplug.options import Options
from pipeline.publishers.sparkplug.session import SparkplugPublisher

__all__ = ["Options", "SparkplugPublisher", "create"]


def create(options: Options, address: Address) -> SparkplugPublisher:
    """Start connecting and return at once; neither broker nor host need be there yet.

    Raises:
        ConfigError: the password or a TLS file cannot be read.
    """
    return SparkplugPublisher(options, address)
