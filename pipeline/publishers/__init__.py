"""Who is told: one file per kind of publisher, all behind the Publisher protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.types import Record


@dataclass(frozen=True, slots=True)
class Address:
    """Where a station stands, by the levels of ISA-95; each is ``[a-z0-9_-]+``."""

    enterprise: str
    site: str
    area: str
    line: str
    station: str

    @property
    def path(self) -> str:
        return "/".join((self.enterprise, self.site, self.area, self.line, self.station))


class Publisher(Protocol):
    """Carries records away from the station.

    A plugin file holds ``class Options(plugins.Options)`` and
    ``create(options, address: Address) -> Publisher``. Only the station's publish thread calls it.

    Attributes:
        trouble: why the receiver cannot be reached now, as far as that is known without sending;
            "" if it can, or if nothing is known.
    """

    @property
    def trouble(self) -> str:
        """See above; never waits."""

    def send(self, records: Sequence[Record]) -> tuple[str, ...]:
        """Hand records over and wait, for a bounded time, until the receiver has confirmed them.

        Returns:
            The ids of the records that were confirmed, or that the receiver refuses for good (it
            logs those); the others are offered again later.

        Raises:
            PublishError: the receiver cannot be reached; nothing was confirmed.
        """

    def state(self, state: Mapping[str, Any]) -> None:
        """Tell the station's state, if the receiver can be reached; never raises, never waits."""

    def close(self) -> None:
        """Say goodbye and disconnect; may be called twice."""
