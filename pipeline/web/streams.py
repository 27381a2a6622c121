"""Answers that come in pieces: the line as events, the live picture, a file that was made."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import IO

from starlette.responses import Response, StreamingResponse

from pipeline.web.board import Board
from pipeline.web.operations import Asked

JPEG = "image/jpeg"
PIECE_BYTES = 1 << 16
BOUNDARY = "frame"


def events(board: Board, asked: Asked) -> Response:
    """Tell the line as server-sent events, as long as somebody listens."""

    async def each() -> AsyncIterator[str]:
        newest = None
        yield "retry: 1000\n\n"
        async for line in board.hub.line.each():
            records = line["records"]
            number = records[-1]["number"] if records else 0
            # The newest parts are told when one has come; what stands still travels once.
            said = line if number != newest else {k: v for k, v in line.items() if k != "records"}
            newest = number
            yield f"data: {json.dumps(said)}\n\n"

    return StreamingResponse(each(), media_type="text/event-stream")


def mjpeg(board: Board, asked: Asked) -> Response:
    """Show the live picture, one JPEG after the other, as long as somebody watches."""

    async def each() -> AsyncIterator[bytes]:
        async for jpeg in board.hub.picture.each():
            head = f"--{BOUNDARY}\r\nContent-Type: {JPEG}\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            yield head.encode() + jpeg + b"\r\n"

    return StreamingResponse(each(), media_type=f"multipart/x-mixed-replace; boundary={BOUNDARY}")


def pieces(file: IO[bytes]) -> Iterator[bytes]:
    """Yield a file piece by piece from its beginning, and let go of it."""
    file.seek(0)
    with file:
        while piece := file.read(PIECE_BYTES):
            yield piece
