"""An order as one message: the signed page alone; the files come from where the station looks."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import UpdateError
from pipeline.limits import json_of
from pipeline.update.order import PAGE, SIGNATURE
from pipeline.update.source import Folder, Source, read_page

MAX_MESSAGE_BYTES = 256 << 10
"""Brokers of clouds take no more; a page names some thousand files in it."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    page: str
    signature: str


@dataclass(frozen=True, slots=True)
class Ordered:
    """An update whose page came by message: whoever sent it says what, and never from where.

    Attributes:
        files: where this station fetches the files that the page names.
    """

    page: bytes
    signature: bytes
    files: Source

    def open(self, path: str, start: int) -> BinaryIO:
        own = {PAGE: self.page, SIGNATURE: self.signature}
        return io.BytesIO(own[path][start:]) if path in own else self.files.open(path, start)


def read_message(payload: bytes, files: Source) -> Ordered:
    """Read a message; nothing in it is believed yet.

    Raises:
        UpdateError: it is larger than MAX_MESSAGE_BYTES, or no order.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise UpdateError(f"a message of {len(payload)} bytes, more than {MAX_MESSAGE_BYTES}")
    try:
        said = _Message.model_validate(json_of(payload))
        return Ordered(said.page.encode(), said.signature.encode(), files)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(p) for p in first["loc"]) or "message"
        raise UpdateError(f"not an order: {where:.60}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise UpdateError(f"not an order: {' '.join(str(error).split())[:200]}") from error


def message_of(folder: Path) -> bytes:
    """Return the message that orders the update in a folder.

    Raises:
        UpdateError: there is no signed page in it, or its page is too large for a message.
    """
    page, signature = (read_page(Folder(folder), p, MAX_MESSAGE_BYTES) for p in (PAGE, SIGNATURE))
    message = json.dumps({"page": page.decode(), "signature": signature.decode()}).encode()
    if len(message) > MAX_MESSAGE_BYTES:
        raise UpdateError(f"{folder / PAGE}: too many files for an order by message; use a timer")
    return message
