"""The dashboard as an ASGI application: pages, their files, and the interface below them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from pipeline.web.access import COOKIE, Attempts, Doorkeeper, Refused, Wall
from pipeline.web.api import operations
from pipeline.web.board import Board
from pipeline.web.desk import MAX_PASSWORD, SESSION_S
from pipeline.web.operations import ROOT, Query, openapi, routes

STATIC = Path(__file__).parent / "static"
PAGES = ("line", "quality", "parts", "review", "station", "recipes", "login")
HASHING_AT_ONCE = 2


class LoginBody(Query):
    name: Annotated[str, Field(max_length=40)]
    password: Annotated[str, Field(max_length=MAX_PASSWORD)]


def application(board: Board, door: Doorkeeper, hosts: frozenset[str]) -> ASGIApp:
    """Return the application; the hub starts and stops with it.

    Args:
        hosts: names under which it may be reached.
    """
    table = operations(board)
    document = openapi(table, version("lineguard"))
    attempts = Attempts()
    hashing = asyncio.Semaphore(HASHING_AT_ONCE)

    @asynccontextmanager
    async def living(app: Starlette) -> AsyncIterator[None]:
        board.hub.start(asyncio.get_running_loop())
        yield
        await run_in_threadpool(board.hub.stop)
        board.close()

    def page(request: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    def me(request: Request) -> Response:
        person = door.person(request)
        return JSONResponse(
            {
                "name": person.name if person else None,
                "role": person.role.word if person else None,
                "token": door.token(request),
                "accounts": board.desk.has_accounts,
                "demo": board.demo,
                "source": board.source,
                "version": version("lineguard"),
            }
        )

    async def log_in(request: Request) -> Response:
        try:
            door.check_token(request)
            body = LoginBody.model_validate_json(await request.body(), strict=True)
            address = request.client.host if request.client else ""
            keys = (f"name {body.name}", f"address {address}")
            attempts.check(*keys)
            attempts.failed(*keys)  # taken back by success: guesses at once count all
            async with hashing:
                token = await run_in_threadpool(board.desk.log_in, body.name, body.password)
            if token is None:
                board.desk.note(body.name, "session.refused", {"address": address})
                raise Refused(401, "name or password is wrong")
            attempts.succeeded(*keys)
        except ValidationError:
            return JSONResponse({"error": "name and password, please"}, 400)
        except Refused as refused:
            return refused.answer()
        answer = JSONResponse({"name": body.name})
        answer.set_cookie(
            COOKIE,
            token,
            max_age=SESSION_S,
            httponly=True,
            samesite="strict",
            secure=door.secure,
        )
        return answer

    def log_out(request: Request) -> Response:
        try:
            door.check_token(request)
        except Refused as refused:
            return refused.answer()
        if (person := door.person(request)) is not None:
            board.desk.log_out(request.cookies.get(COOKIE, ""), person.name)
        answer = JSONResponse({})
        answer.delete_cookie(COOKIE, samesite="strict", httponly=True, secure=door.secure)
        return answer

    app = Starlette(
        routes=[
            Route("/", lambda request: RedirectResponse("/line")),
            *(Route(f"/{name}", page) for name in PAGES),
            Route("/parts/{id}", page),
            Route("/healthz", lambda request: JSONResponse({"ok": True})),
            Route(f"{ROOT}/me", me),
            Route(f"{ROOT}/openapi.json", lambda request: JSONResponse(document)),
            Route(f"{ROOT}/login", log_in, methods=["POST"]),
            Route(f"{ROOT}/logout", log_out, methods=["POST"]),
            *routes(table, door),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        lifespan=living,
        exception_handlers={
            404: lambda request, error: JSONResponse({"error": "there is no such page"}, 404),
            405: lambda request, error: JSONResponse({"error": "this method is not served"}, 405),
        },
    )
    return Wall(app, hosts)
