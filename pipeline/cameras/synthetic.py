"""A camera over a drawn belt with good and bad boards: the demo line, and a double with faults."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.cameras._capture import Exposures, Opening, Pace
from pipeline.clock import NS_PER_MS, NS_PER_S, Clock
from pipeline.errors import CameraError
from pipeline.plugins import Options as BaseOptions
from pipeline.synth import optics
from pipeline.synth.line import BeltScene, BeltSetup
from pipeline.types import Frame

Count = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=160, le=8192)]


class Options(BaseOptions):
    """What lies on the belt, how it is seen, and what goes wrong.

    Attributes:
        seed: the same seed shows the same boards.
        boards: how many pass; None is endless.
        good_share: share of boards without a defect, 0..1.
        speed_px: travel of the belt from frame to frame, pixels.
        realtime: frames come at ``fps``, whether or not they are taken.
        width, height: of the frame, pixels.
        board_px: side of a board, pixels.
        variety: distinct boards that are drawn; after these they come again.
        layout: number of the layout that all boards share, as the boards of one product do; None
            gives each a layout of its own.
        look: ``demo`` is copper on green in a camera's light, ``binary`` black on white.
        gray: frames are (H, W) instead of (H, W, 3).
        drop_frames: numbers of exposures that are lost.
        stall_after: number of the frame before which the camera hangs, once.
        stall_ms: how long it hangs until it is reported lost.
        fail_after: number of the frame before which the camera is lost, once.
    """

    seed: Count = 0
    boards: Annotated[int, Field(ge=1)] | None = None
    good_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    speed_px: Annotated[int, Field(ge=1)] = 20
    realtime: bool = False
    fps: Annotated[float, Field(gt=0, le=1000)] = 30.0
    width: Side = 1280
    height: Side = 720
    board_px: Side = 640
    variety: Annotated[int, Field(ge=1, le=1000)] = 24
    layout: Count | None = None
    look: Literal["demo", "binary"] = "demo"
    gray: bool = False
    drop_frames: tuple[Count, ...] = ()
    stall_after: Count | None = None
    stall_ms: Annotated[int, Field(ge=0, le=60_000)] = 1000
    fail_after: Count | None = None


class Synthetic:
    """Shows a belt; the number of a frame is where the belt stands, also after a reopening.

    Attributes:
        boards: how many pass; None is endless.
        geometry: size of the frame and of the boards, speed, and where a board lies in a frame.
    """

    def __init__(self, options: Options, name: str, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._name = name
        self._scene = BeltScene(options.seed, _setup(options))
        self._exposures = Exposures(name, clock, options.gray)
        self._opening = Opening()
        self._lost = frozenset(options.drop_frames)
        self._stall_at = options.stall_after
        self._fail_at = options.fail_after
        self.live = options.realtime
        self.boards = options.boards
        self.geometry: dict[str, Any] = self._scene.geometry()
        self.total = self._expected_total()

    @property
    def truth(self) -> list[dict[str, Any]]:
        """What is true of each board: all of them, or of an endless belt those seen so far."""
        seen = self._scene.setup.boards
        if seen is None:
            boards = self._scene.visible(max(self._exposures.next_seq - 1, 0))
            seen = boards[-1].index + 1 if boards else self._passed()
        return [self._scene.truth(index) for index in range(seen)]

    def truth_of(self, index: int) -> dict[str, Any]:
        """Return what is true of one board, whether or not it has been seen."""
        return self._scene.truth(index)

    def frames(self) -> Iterator[Frame]:
        self.close()
        with Opening() as opening:
            self._opening = opening
            interval_ns = round(NS_PER_S / self._options.fps) if self.live else 0
            pace = Pace(self._clock, interval_ns)
            while not opening.ended and self._has_more():
                self._go_wrong()
                pace.wait()
                if self._exposures.next_seq in self._lost:
                    self._exposures.lose(1)
                elif not opening.ended:
                    yield self._exposures.frame(self._scene.frame(self._exposures.next_seq))

    def close(self) -> None:
        self._opening.end()

    def _has_more(self) -> bool:
        count = self._scene.frame_count
        return count is None or self._exposures.next_seq < count

    def _passed(self) -> int:
        """Count the boards whose centre has passed."""
        index = 0
        while self._scene.centre_frame(index) < self._exposures.next_seq:
            index += 1
        return index

    def _expected_total(self) -> int | None:
        count = self._scene.frame_count
        return None if count is None else count - sum(seq < count for seq in self._lost)

    def _go_wrong(self) -> None:
        seq = self._exposures.next_seq
        if self._stall_at is not None and seq >= self._stall_at:
            self._stall_at = None
            wait_ms = self._options.stall_ms
            self._clock.sleep_until(self._clock.now_ns() + wait_ms * NS_PER_MS)
            raise CameraError(
                f"camera '{self._name}': no frame for {wait_ms} ms; a stall was asked for"
            )
        if self._fail_at is not None and seq >= self._fail_at:
            self._fail_at = None
            raise CameraError(f"camera '{self._name}': lost before frame {seq}, as was asked for")


def _setup(options: Options) -> BeltSetup:
    return BeltSetup(
        width=options.width,
        height=options.height,
        board_px=options.board_px,
        belt_px_per_frame=options.speed_px,
        good_share=options.good_share,
        boards=options.boards,
        variety=options.variety,
        layout=options.layout,
        look=optics.DEMO if options.look == "demo" else optics.BINARY,
    )


def create(options: Options, name: str, clock: Clock) -> Synthetic:
    """Make the camera.

    Raises:
        ConfigError: the numbers do not fit together, e.g. boards higher than the frame.
    """
    return Synthetic(options, name, clock)
