"""Tell from undecoded packets that a stream changes its format, which OpenCV hides by scaling."""

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
