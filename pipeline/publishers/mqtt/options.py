"""What the station file says of publishing records to a broker."""

from typing import Annotated

from pydantic import Field, model_validator

from pipeline.broker import Broker
from pipeline.plugins import ConfigPath


class Options(Broker):
    """Where the broker is and how to speak to it; see ``Broker`` for what is not named here.

    Attributes:
        root: first level of all topics.
        topic: one for everything instead, for brokers that prescribe it; ``{leaf}`` in it becomes
            ``inspection``, ``defect`` or ``state``.
        version: of MQTT. 3.1.1 is for brokers that know no other: there a refused message looks
            like one that was taken, unless the broker hangs up on it.
        retain_state: let the broker keep the newest state for whoever comes later.
        confirm_s: how long ``send`` waits for confirmations.
        in_flight: messages on their way at most; a broker may ask for fewer.
        max_payload_bytes: a larger event is not sent; a broker may ask for less.
        defect_topic: publish FAIL and UNSURE a second time, on ``defect``.
        dead_letter: file that takes the events the broker refuses for good, one a line.
        collector: name of a ``lineguard collect`` whose receipt makes a record delivered; None is
            content with the broker's confirmation.
        catch_up_per_s: events a second at most, so that a backlog leaves room on the network.
    """

    root: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,3}$")] = (
        "lineguard"
    )
    topic: Annotated[str, Field(pattern="^[^#+\x00-\x1f]{1,256}$")] | None = None
    retain_state: bool = True
    confirm_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    in_flight: Annotated[int, Field(ge=1, le=1000)] = 64
    max_payload_bytes: Annotated[int, Field(ge=256, le=1 << 20)] = 65536
    defect_topic: bool = False
    dead_letter: ConfigPath | None = None
    collector: Annotated[str, Field(pattern="^[a-z0-9_-]{1,64}$")] | None = None
    catch_up_per_s: Annotated[int, Field(ge=1, le=100_000)] = 1000

    @model_validator(mode="after")
    def _receipts_have_a_topic(self) -> "Options":
        if self.collector and (self.topic or self.version != "5"):
            raise ValueError("a collector answers under root, over MQTT 5: leave topic and version")
        return self
