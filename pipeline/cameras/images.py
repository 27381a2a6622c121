"""A camera that shows the pictures of a folder, or one picture: for replays and evaluations."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.cameras._capture import Exposures, Opening
from pipeline.clock import Clock
from pipeline.errors import ConfigError
from pipeline.plugins import ConfigPath
from pipeline.plugins import Options as BaseOptions
from pipeline.types import Frame
from pipeline.vision.picture import MAX_PIXELS, SUFFIXES, read_picture


class Options(BaseOptions):
    """Which pictures.

    Attributes:
        path: a folder, whose pictures come in the order of their names, or one picture. Other
            files in the folder are passed over by their suffix; folders in it are not entered.
        max_pixels: a larger picture is refused before it is decoded.
        gray: frames are (H, W) instead of (H, W, 3).
    """

    path: ConfigPath
    max_pixels: Annotated[int, Field(ge=1)] = MAX_PIXELS
    gray: bool = False


class Images:
    """Shows each picture once; asked for frames again, it shows them again."""

    live = False

    def __init__(self, options: Options, name: str, clock: Clock) -> None:
        self._options = options
        self._exposures = Exposures(name, clock, options.gray)
        self._opening = Opening()
        self.total: int | None = None
        with suppress(ConfigError):
            self.total = len(_pictures(options.path))

    def frames(self) -> Iterator[Frame]:
        self.close()
        with Opening() as opening:
            self._opening = opening
            for file in _pictures(self._options.path):
                image = read_picture(file, self._options.max_pixels)
                if opening.ended:
                    return
                yield self._exposures.frame(image)

    def close(self) -> None:
        self._opening.end()


def create(options: Options, name: str, clock: Clock) -> Images:
    """Make the camera."""
    return Images(options, name, clock)


def _pictures(path: Path) -> list[Path]:
    if not path.exists():
        raise ConfigError(f"{path}: there is no such picture or folder; check camera.path")
    if not path.is_dir():
        return [path]
    try:
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; check the rights of the folder") from error
    if not files:
        raise ConfigError(f"{path}: no picture in this folder ({', '.join(SUFFIXES)})")
    return files
