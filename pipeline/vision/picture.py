"""Read and write single pictures within bounds: the header is judged before anything is decoded."""

import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from pipeline.errors import ConfigError, StoreError
from pipeline.limits import open_regular, read_bounded
from pipeline.types import Image

MAX_PIXELS = 64_000_000
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MAX_BYTES_PER_PIXEL = 8  # four channels of 16 bit, uncompressed
FREE_BYTES = 1 << 20  # what metadata and a thumbnail may add
MAX_SEGMENTS = 1000  # of a JPEG before its size; each costs a step here
MAX_CHUNKS = 200_000  # of a PNG: the 512 MB that 64 million pixels may take, in pieces of 8 kB

Size = tuple[int, int]


def size_of(file: Path) -> Size:
    """Return width and height, pixels, as the header states them; nothing is decoded.

    PNG, JPEG, BMP, TIFF (first page) and WebP are known. A rotation in EXIF is not applied.

    Raises:
        ConfigError: the file cannot be read or is no such picture.
    """
    try:
        with open_regular(file) as stream:
            return _header_size(stream, str(file))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; name a picture that can be read") from error


def read_picture(file: Path, max_pixels: int = MAX_PIXELS) -> Image:
    """Read one picture, turned as its EXIF orientation says.

    Returns:
        uint8 (H, W, 3), BGR.

    Raises:
        ConfigError: no picture, cut off, or larger than ``max_pixels``.
    """
    size = size_of(file)
    _check_pixels(str(file), size, max_pixels)
    try:
        data = read_bounded(file, _most_bytes(size))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; name a picture that can be read") from error
    except ValueError as error:
        raise ConfigError(
            f"{file}: far too large for {size[0]} x {size[1]} pixels; save it again"
        ) from error
    return _checked(data, str(file), size)


def decode_picture(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode a picture that is in memory; else as ``read_picture``.

    Args:
        name: what errors call it.
    """
    size = _header_size(BytesIO(data), name)
    _check_pixels(name, size, max_pixels)
    return _checked(data, name, size)


def _check_pixels(name: str, size: Size, max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        # A PNG of 109 kB with 30,000 x 30,000 pixels took OpenCV 8.7 s and 5.2 GB.
        raise ConfigError(
            f"{name}: {size[0]} x {size[1]} pixels are more than the limit of {max_pixels}; "
            "scale it down or raise max_pixels"
        )


def _most_bytes(size: Size) -> int:
    return size[0] * size[1] * MAX_BYTES_PER_PIXEL + FREE_BYTES


def _checked(data: bytes, name: str, size: Size) -> Image:
    image = _decoded(data) if _is_whole(data) else None
    if image is None:
        raise ConfigError(f"{name}: the picture is damaged or cut off; copy the file again")
    if sorted(image.shape[:2]) != sorted(size):
        raise ConfigError(f"{name}: the picture is not {size[0]} x {size[1]} as its header says")
    return image


def encode_jpeg(image: Image, quality: int = 90) -> bytes:
    """Return a picture as JPEG.

    Args:
        image: uint8 (H, W, 3) BGR or (H, W).
        quality: 1..100.

    Raises:
        StoreError: it cannot be encoded, e.g. a side of more than 65,500 pixels.
    """
    try:
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error:
        done = False
    if not done:
        shape = " x ".join(str(n) for n in image.shape)
        raise StoreError(f"a picture of {shape} cannot be encoded as JPEG; crop it")
    return bytes(data)


def encode_png(image: Image) -> bytes:
    """Return a picture as PNG, which loses nothing.

    Raises:
        StoreError: it cannot be encoded.
    """
    try:
        done, data = cv2.imencode(".png", image)
    except cv2.error:
        done = False
    if not done:
        raise StoreError("a picture cannot be encoded as PNG; is it empty?")
    return bytes(data)


def _decoded(data: bytes) -> Image | None:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if image is None else np.asarray(image, np.uint8)


def _is_whole(data: bytes) -> bool:
    """Look for the end mark; OpenCV 4 fills the rest of a cut picture with grey."""
    if data.startswith(b"\xff\xd8"):
        scan = data.rfind(b"\xff\xda")
        return scan > 0 and data.find(b"\xff\xd9", scan) > 0
    if data.startswith(b"\x89PNG"):
        return _png_is_whole(data)
    if data.startswith(b"RIFF"):
        return len(data) >= int.from_bytes(data[4:8], "little") + 8
    if data.startswith(b"BM"):
        return len(data) >= int.from_bytes(data[2:6], "little")
    return True


def _png_is_whole(data: bytes) -> bool:
    """Walk the chunks: OpenCV 5 believes a damaged length and spent 13 s on a file of 10 kB."""
    at = 8
    for _ in range(MAX_CHUNKS):
        if at + 12 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if kind == b"IEND":
            return bool(at <= len(data))
    return False


def _header_size(stream: BinaryIO, name: str) -> Size:
    start = stream.read(32)
    measure = next((m for mark, m in _MARKS.items() if start.startswith(mark)), None)
    if measure is None:
        raise ConfigError(
            f"{name}: not a picture that can be read; use PNG, JPEG, BMP, TIFF or WebP"
        )
    stream.seek(0)
    try:
        size = measure(stream)
    except (struct.error, ValueError, IndexError) as error:
        raise ConfigError(f"{name}: the picture's header is damaged; copy it again") from error
    if min(size) < 1:
        raise ConfigError(f"{name}: the picture's header says {size[0]} x {size[1]}; it is damaged")
    return size


def _png(stream: BinaryIO) -> Size:
    width, height = struct.unpack(">12x4xII", stream.read(24))
    return width, height


def _bmp(stream: BinaryIO) -> Size:
    head = stream.read(26)
    if int.from_bytes(head[14:18], "little") == 12:  # the header of OS/2
        width, height = struct.unpack("<HH", head[18:22])
    else:
        width, height = struct.unpack("<ii", head[18:26])
    return abs(width), abs(height)  # a negative height: the rows run downward


def _jpeg(stream: BinaryIO) -> Size:
    stream.read(2)
    for _ in range(MAX_SEGMENTS):
        mark, code, length = struct.unpack(">BBH", stream.read(4))
        if mark != 0xFF or length < 2:
            raise ValueError("no marker where one should be")
        if 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">xHH", stream.read(5))
            return width, height
        stream.seek(length - 2, 1)
    raise ValueError("no size in its first segments")


def _tiff(stream: BinaryIO) -> Size:
    order = "<" if stream.read(4)[:1] == b"I" else ">"
    stream.seek(*struct.unpack(order + "I", stream.read(4)))
    found = {}
    for _ in range(struct.unpack(order + "H", stream.read(2))[0]):
        tag, kind, _count, value = struct.unpack(order + "HHI4s", stream.read(12))
        if tag in (256, 257):
            found[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), value)[0]
    if len(found) != 2:
        raise ValueError("no width or no height")
    return found[256], found[257]


def _webp(stream: BinaryIO) -> Size:
    head = stream.read(30)
    kind = head[8:16]
    if kind == b"WEBPVP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"WEBPVP8L":
        bits = struct.unpack("<I", head[21:25])[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"WEBPVP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
        return width, height
    raise ValueError("no WebP")


_MARKS: dict[bytes, Callable[[BinaryIO], Size]] = {
    b"\x89PNG\r\n\x1a\n": _png,
    b"\xff\xd8\xff": _jpeg,
    b"BM": _bmp,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    b"RIFF": _webp,
}
