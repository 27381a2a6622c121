"""Makes the picture of a part that was found good the template of a model that compares."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

from pipeline import trace
from pipeline.errors import ConfigError, ViewError
from pipeline.types import Box, Record, Verdict
from pipeline.vision.crop import cut_around
from pipeline.vision.picture import encode_png
from pipeline.vision.template import REACH_PX


def teach(store: Path, record: Record, out: Path, *, looked_at: bool = False) -> str:
    """Cut a recorded part out of its picture, with the room that its place may vary by.

    Args:
        store: folder of the ledger that holds the record.
        out: the .png to write.
        looked_at: a person says that the part is good, whatever its verdict.

    Returns:
        The SHA-256 of the file, for ``model.template``.

    Raises:
        ConfigError: the part was not passed, its picture was not kept or changed, or the file
            cannot be written.
    """
    if record.verdict is not Verdict.PASS and not looked_at:
        raise ConfigError(
            f"part {record.part} is {record.verdict.value}: what it shows would be good from now "
            "on; take one that passed, or say --good if you have looked at it"
        )
    if record.image_box is None:
        raise ConfigError(
            f"part {record.part}: no picture was kept of it; set store.pictures to all, and take "
            "one that comes then"
        )
    if out.suffix.lower() != ".png":
        raise ConfigError(f"{out}: a template must lose nothing; name a file that ends in .png")
    image, box = trace.stored_picture(store, record), Box(*record.image_box)
    height, width = (math.ceil(side) + 2 * REACH_PX for side in (box.height, box.width))
    try:
        cut, _ = cut_around(image, box, height, width)
    except ViewError as error:
        raise ConfigError(f"part {record.part}: {error}; take one that is shown whole") from error
    data = encode_png(cut)
    try:
        out.write_bytes(data)
    except OSError as error:
        raise ConfigError(
            f"{out}: {error.strerror}; name a file in a folder that exists"
        ) from error
    return hashlib.sha256(data).hexdigest()
