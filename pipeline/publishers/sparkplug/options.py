"""What the station file says of a plant that speaks Sparkplug."""

from typing import Annotated

from pydantic import Field

from pipeline.broker import Broker

NAME = "^[^+/#\x00-\x1f]{1,128}$"
"""What Sparkplug allows as a name; a slash would be another level of the topic."""


class Options(Broker):
    """Where the broker is (see ``Broker``), and under which names the station speaks there.

    Attributes:
        group: of the edge node; None makes it of site and line.
        node: the edge node; None is the station's name.
        primary_host: host application whose word ``online`` is waited for; None waits for nobody.
        confirm_s: how long ``send`` waits until the broker has read what it was given.
    """

    group: Annotated[str, Field(pattern=NAME)] | None = None
    node: Annotated[str, Field(pattern=NAME)] | None = None
    primary_host: Annotated[str, Field(pattern=NAME)] | None = None
    confirm_s: Annotated[float, Field(gt=0, le=60)] = 5.0
