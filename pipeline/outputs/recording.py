"""An output that remembers what it was told; for demos and tests."""

from pipeline.clock import Clock
from pipeline.plugins import Options as BaseOptions
from pipeline.types import Decision, Inspection, Verdict


class Options(BaseOptions):
    """It needs no settings."""


class RecordingOutput:
    """Keeps every command in order.

    Attributes:
        acted: (part id, True if it was rejected).
        ready_states: what ``ready`` was told.
    """

    def __init__(self) -> None:
        self.acted: list[tuple[int, bool]] = []
        self.ready_states: list[bool] = []
        self.closed = False

    def act(self, inspection: Inspection) -> Decision | None:
        self.acted.append((inspection.part.id, inspection.decision.verdict is not Verdict.PASS))
        return None

    def ready(self, is_ready: bool) -> None:
        self.ready_states.append(is_ready)

    def close(self) -> None:
        self.closed = True


def create(options: Options, clock: Clock) -> RecordingOutput:
    """Make a recording output."""
    del options, clock
    return RecordingOutput()
