"""The dashboard as an ASGI application: pages, their files, and the interface below them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from pipeline.web.access import Doorkeeper, Wall
from pipeline.web.api import operations
from pipeline.web.board import Board
from pipeline.web.operations import ROOT, openapi, routes
from pipeline.web.session import session_routes

STATIC = Path(__file__).parent / "static"
PAGES = ("line", "quality", "parts", "review", "station", "recipes", "login")


def application(board: Board, door: Doorkeeper, hosts: frozenset[str]) -> ASGIApp:
    """Return the application; the hub starts and stops with it.

    Args:
        hosts: names under which it may be reached.
    """
    table = operations(board)
    document = openapi(table, version("lineguard"))

    @asynccontextmanager
    async def living(app: Starlette) -> AsyncIterator[None]:
        board.hub.start(asyncio.get_running_loop())
        yield
        await run_in_threadpool(board.hub.stop)
        board.close()

    def page(request: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    app = Starlette(
        routes=[
            Route("/", lambda request: RedirectResponse("/line")),
            *(Route(f"/{name}", page) for name in PAGES),
            Route("/parts/{id}", page),
            Route("/healthz", lambda request: JSONResponse({"ok": True})),
            Route(f"{ROOT}/openapi.json", lambda request: JSONResponse(document)),
            *session_routes(board, door),
            *routes(table, door),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        lifespan=living,
        exception_handlers={
            404: lambda request, error: JSONResponse({"error": "there is no such page"}, 404),
            405: lambda request, error: JSONResponse({"error": "this method is not served"}, 405),
        },
    )
    return Wall(app, hosts, {ROOT + op.path: op.uploads for op in table if op.uploads})
