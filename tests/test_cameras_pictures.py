"""Single pictures: judged by their header, decoded only within bounds."""

import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import ConfigError, StoreError
from pipeline.vision.picture import encode_jpeg, read_picture, size_of

WIDTH, HEIGHT = 70, 50


def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def saved(file: Path, *settings: int) -> Path:
    assert cv2.imwrite(str(file), picture(), settings)
    return file


def huge_png(file: Path, side: int = 30_000) -> Path:
    """Write a PNG that is small as a file and 2.7 GB decoded."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(side // 8 + 1) * 100))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + head + rows + chunk(b"IEND", b""))
    return file


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.png", ()),
        ("a.jpg", ()),
        ("p.jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        ("a.bmp", ()),
        ("a.tif", ()),
        ("a.webp", (cv2.IMWRITE_WEBP_QUALITY, 80)),
        ("lossless.webp", (cv2.IMWRITE_WEBP_QUALITY, 101)),
    ],
)
def test_the_header_tells_the_size(tmp_path: Path, name: str, settings: tuple[int, ...]) -> None:
    file = saved(tmp_path / name, *settings)
    assert size_of(file) == (WIDTH, HEIGHT)
    image = read_picture(file)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.dtype == np.uint8


def test_a_lossless_picture_is_read_as_it_is(tmp_path: Path) -> None:
    assert np.array_equal(read_picture(saved(tmp_path / "a.png")), picture())


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    file = huge_png(tmp_path / "bomb.png")
    began_s = time.process_time()
    with pytest.raises(ConfigError) as said:
        read_picture(file)
    assert time.process_time() - began_s < 1.0, "decoding it takes seconds"
    for word in ("bomb.png", "30000 x 30000", "64000000", "scale it down"):
        assert word in str(said.value)


def test_a_chunk_that_claims_gigabytes_is_refused_at_once(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.png")
    data = bytearray(file.read_bytes())
    data[33:37] = b"\x7f\xff\xff\xff"
    file.write_bytes(data)
    began_s = time.process_time()
    with pytest.raises(ConfigError, match="damaged or cut off"):
        read_picture(file)
    assert time.process_time() - began_s < 1.0, "OpenCV makes room for the chunk for seconds"


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "p.jpg", "a.bmp", "a.tif", "a.webp"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_cut_picture_is_refused(tmp_path: Path, name: str, share: float) -> None:
    progressive = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1) if name == "p.jpg" else ()
    file = saved(tmp_path / name, *progressive)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(ConfigError) as said:
        read_picture(file)
    assert name in str(said.value)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "not a picture"),
        (b"just text", "not a picture"),
        (b"GIF89a" + bytes(50), "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "header is damaged"),
        (b"\xff\xd8\xff\xe0\0\0", "header is damaged"),
        (b"II*\0\xff\xff\xff\xff", "header is damaged"),
        (b"RIFF\0\0\0\0WAVEfmt ", "header is damaged"),
        (b"BM" + bytes(30), "header says 0 x 0"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "a.png"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        read_picture(file)


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name a picture"):
        size_of(tmp_path)


def test_a_file_far_larger_than_its_pixels_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.jpg")
    file.write_bytes(file.read_bytes() + bytes(3 << 20))
    with pytest.raises(ConfigError, match="far too large"):
        read_picture(file)


@pytest.mark.parametrize("shape", [(50, 70, 3), (50, 70)])
def test_a_jpeg_can_be_read_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    (tmp_path / "a.jpg").write_bytes(encode_jpeg(np.full(shape, 99, np.uint8), 95))
    assert abs(float(read_picture(tmp_path / "a.jpg").mean()) - 99) < 2


def test_a_better_quality_is_a_larger_file() -> None:
    assert len(encode_jpeg(picture(), 95)) > len(encode_jpeg(picture(), 40))


def test_a_picture_too_wide_for_jpeg_is_said() -> None:
    with pytest.raises(StoreError, match="cannot be encoded as JPEG"):
        encode_jpeg(np.zeros((1, 70_000), np.uint8))
