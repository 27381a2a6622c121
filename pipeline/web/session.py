"""Logging in and out, and who one is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from typing import Annotated

from pydantic import Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipeline.web.access import COOKIE, Attempts, Doorkeeper, Refused
from pipeline.web.board import Board
from pipeline.web.desk import MAX_PASSWORD, SESSION_S
from pipeline.web.operations import ROOT, Query

HASHING_AT_ONCE = 2
"""Each takes 16 MiB and a core for a moment: guesses must not starve the pages."""


class LoginBody(Query):
    name: Annotated[str, Field(min_length=1, max_length=40)]
    password: Annotated[str, Field(max_length=MAX_PASSWORD)]


def session_routes(board: Board, door: Doorkeeper) -> list[Route]:
    """Return the routes that need no role."""
    session = _Session(board, door)
    return [
        Route(f"{ROOT}/me", session.me),
        Route(f"{ROOT}/login", session.log_in, methods=["POST"]),
        Route(f"{ROOT}/logout", session.log_out, methods=["POST"]),
    ]


@dataclass(slots=True)
class _Session:
    board: Board
    door: Doorkeeper
    attempts: Attempts = field(default_factory=Attempts)
    hashing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(HASHING_AT_ONCE))

    def me(self, request: Request) -> Response:
        """Say who asks, and the token that changes must carry."""
        person = self.door.person(request)
        return JSONResponse(
            {
                "name": person.name if person else None,
                "role": person.role.word if person else None,
                "token": self.door.token(request),
                "accounts": self.board.desk.has_accounts,
                "demo": self.board.demo,
                "parquet": find_spec("pyarrow") is not None,
                "source": self.board.source,
                "version": version("lineguard"),
            }
        )

    async def log_in(self, request: Request) -> Response:
        try:
            self.door.check_token(request)
            body = LoginBody.model_validate_json(await request.body(), strict=True)
            token = await self._token(body, request.client.host if request.client else "")
        except (ValidationError, ClientDisconnect):
            return JSONResponse({"error": "send a name and a password"}, 400)
        except Refused as refused:
            return refused.answer()
        answer = JSONResponse({"name": body.name})
        answer.set_cookie(
            COOKIE,
            token,
            max_age=SESSION_S,
            httponly=True,
            samesite="strict",
            secure=self.door.secure,
        )
        return answer

    def log_out(self, request: Request) -> Response:
        try:
            self.door.check_token(request)
        except Refused as refused:
            return refused.answer()
        if (person := self.door.person(request)) is not None:
            self.board.desk.log_out(request.cookies.get(COOKIE, ""), person.name)
        answer = JSONResponse({})
        answer.delete_cookie(COOKIE, samesite="strict", httponly=True, secure=self.door.secure)
        return answer

    async def _token(self, body: LoginBody, address: str) -> str:
        keys = (f"name {body.name}", f"address {address}")
        self.attempts.check(*keys)
        # Counted before it is tried, and taken back by success: many at once all count.
        self.attempts.failed(*keys)
        desk = self.board.desk
        async with self.hashing:
            token = await run_in_threadpool(desk.log_in, body.name, body.password)
        if token is None:
            said = {"address": address}
            await run_in_threadpool(desk.note, body.name, "session.refused", said)
            raise Refused(401, "name or password is wrong")
        self.attempts.succeeded(*keys)
        return token
