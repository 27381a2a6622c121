"""Records to an MQTT 5 broker: QoS 1, one event per part; docs/mqtt.md is its manual."""

import logging

from pipeline.broker import Tls
from pipeline.publishers import Address
from pipeline.publishers.mqtt.delivery import MqttPublisher
from pipeline.publishers.mqtt.options import Options

__all__ = ["MqttPublisher", "Options", "Tls", "create"]

LOG = logging.getLogger(__name__)
SAME_MACHINE = ("127.0.0.1", "::1", "localhost")


def create(options: Options, address: Address) -> MqttPublisher:
    """Start connecting and return at once; the broker need not be there yet.

    Raises:
        ConfigError: the password or a TLS file cannot be read.
    """
    if options.tls is None and options.host not in SAME_MACHINE:
        LOG.warning(
            "mqtt broker %s:%d: the connection is not encrypted; add a tls section",
            options.host,
            options.port,
        )
    return MqttPublisher(options, address)
