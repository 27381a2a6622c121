"""Tell what OpenCV hides of a stream: a change of its format, and pictures that come as halves."""

from collections.abc import Callable, Mapping

from pipeline.types import Image

HEADER_BYTES = 4096  # x264 puts 700 bytes of settings before its parameter sets


class ParameterSets:
    """The parameter sets of one stream: H.264, HEVC, MPEG-4, MPEG-1/2; of other codecs, none.

    Args:
        codec: as OpenCV gives it (CAP_PROP_FOURCC).
    """

    def __init__(self, codec: int) -> None:
        self._is_parameter_set = _PARAMETER_SETS.get(_codec_name(codec))
        self._known: set[bytes] = set()

    def changed(self, packet: Image) -> bool:
        """Tell whether a packet brings other parameter sets than all those before."""
        if self._is_parameter_set is None:
            return False
        units = packet.reshape(-1)[:HEADER_BYTES].tobytes().split(b"\0\0\1")[1:]
        found = {unit.rstrip(b"\0") for unit in units if unit and self._is_parameter_set(unit[0])}
        changed = bool(self._known and found and self._known.isdisjoint(found))
        self._known |= found
        return changed


class SplitPictures:
    """Tells whole pictures from halves.

    Where an encoder cuts its pictures into slices and repeats the parameter sets before each, as
    GStreamer does without h264parse, FFmpeg takes each slice of a key picture for a picture: 63
    came for 60, and the smear of the halves stayed until the next key picture. It shows as two
    key pictures in a row, of one time stamp. The first two pictures of any stream may have the
    same stamp, and the first halves may have two; so the first picture is left out, and after two
    key pictures at the start the next ones decide.

    Attributes:
        are_split: the stream hands out halves.
    """

    PATIENCE = 900

    def __init__(self) -> None:
        self.are_split = False
        self._last: tuple[float, bool] | None = None  # time stamp, whether it is a key picture
        self._is_start = True
        self._doubtful = 0  # pictures since two key pictures that may have been halves

    def is_whole(self, at_ms: float, is_key: bool) -> bool:
        """Judge the next picture by its time stamp and whether it is a key picture."""
        last, self._last = self._last, (at_ms, is_key)
        if last is None:
            return False
        if is_key and last[1]:
            same = at_ms == last[0]
            self.are_split = same and at_ms > 0
            self._doubtful = int(same or self._is_start)
        elif self._doubtful:
            was_alone = last[1] and self._doubtful > 1
            self._doubtful = 0 if was_alone else self._doubtful + 1
            self.are_split = self._doubtful > self.PATIENCE
        self._is_start = False
        return not self._doubtful


def _codec_name(number: int) -> str:
    # A transport stream names its codec by a number below 256, other containers by four letters;
    # a file that does not open has -1.
    return max(number, 0).to_bytes(4, "little").decode("latin-1").rstrip("\0").lower()


def _h264(first: int) -> bool:
    return first & 0x1F == 7


def _hevc(first: int) -> bool:
    return first >> 1 & 0x3F == 33


def _mpeg4(first: int) -> bool:
    return 0x20 <= first <= 0x2F


def _mpeg2(first: int) -> bool:
    return first == 0xB3


_PARAMETER_SETS: Mapping[str, Callable[[int], bool]] = {
    **dict.fromkeys(("h264", "avc1", "avc3", "x264", "\x1b"), _h264),
    **dict.fromkeys(("hevc", "hev1", "hvc1", "h265", "\x24"), _hevc),
    **dict.fromkeys(("mp4v", "fmp4", "xvid", "divx", "dx50", "mpeg4", "\x10"), _mpeg4),
    **dict.fromkeys(("mpg1", "mpg2", "mpeg", "\x01", "\x02"), _mpeg2),
}
