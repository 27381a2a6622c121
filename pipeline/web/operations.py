"""The interface under /api/v1: one table makes both the routes and the OpenAPI page."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipeline import __name__ as package
from pipeline.errors import ConfigError, LineguardError
from pipeline.web.access import CSRF_HEADER, Doorkeeper, Refused
from pipeline.web.desk import Person, Role

ROOT = "/api/v1"
IN_MEMORY_BYTES = 1 << 20
ADMITTED_S = 2.0
"""So often it is asked again whether somebody may go on watching a stream."""

_REFUSALS = {
    "400": "The request is not as it should be.",
    "401": "Nobody is logged in.",
    "403": "The role is too small, or the token of the page is missing.",
    "404": "There is none of that id.",
    "413": "The body is too large.",
    "503": "The store cannot be read.",
}


class Query(BaseModel):
    """Base of what a request may say; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose person and values are known to be right."""

    request: Request
    person: Person
    query: Any
    file: IO[bytes] | None = None

    @property
    def id(self) -> str:
        return str(self.request.path_params["id"])


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked.

    Attributes:
        path: below /api/v1; ``{id}`` is a record's id.
        run: returns what becomes JSON, or a response; it runs in a thread.
        takes: of the query string (GET) or the JSON body (POST), or None.
        gives: media type of the answer.
        uploads: bytes at most of a file that is its body, or 0; its values are then in the query.
        streams: it answers at once with a stream, from within the loop.
    """

    method: str
    path: str
    role: Role
    run: Callable[..., Any]
    says: str
    takes: type[Query] | None = None
    gives: str = "application/json"
    streams: bool = False
    uploads: int = 0

    @property
    def has_json(self) -> bool:
        """Whether its values come as a JSON body."""
        return self.takes is not None and self.method == "POST" and not self.uploads


def routes(operations: Sequence[Operation], door: Doorkeeper) -> list[Route]:
    """Return a route for each operation, each behind its role."""
    return [
        Route(
            ROOT + op.path,
            _endpoint(op, door),
            methods=[op.method],
            name=f"{op.method} {op.path}",
        )
        for op in operations
    ]


def _endpoint(op: Operation, door: Doorkeeper) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        try:
            person = await run_in_threadpool(door.admit, request, op.role)
            asked = Asked(request, person, await _values(op, request), await _file(op, request))
            if op.streams:
                made = op.run(asked)
                made.body_iterator = _while_admitted(made.body_iterator, door, request, op.role)
            else:
                made = await run_in_threadpool(op.run, asked)
        except Refused as refused:
            return refused.answer()
        except ConfigError as error:
            return JSONResponse({"error": str(error)}, 400)
        except LineguardError as error:
            return JSONResponse({"error": str(error)}, 503)
        return made if isinstance(made, Response) else JSONResponse(made)

    return serve


async def _while_admitted(
    pieces: AsyncGenerator[Any, None], door: Doorkeeper, request: Request, least: Role
) -> AsyncIterator[Any]:
    """End a stream soon after the session that asked for it has ended."""
    checked_s = time.monotonic()
    async with aclosing(pieces):
        async for piece in pieces:
            if time.monotonic() - checked_s > ADMITTED_S:
                checked_s = time.monotonic()
                try:
                    await run_in_threadpool(door.admit, request, least)
                except Refused:
                    return
            yield piece


async def _values(op: Operation, request: Request) -> Query | None:
    try:
        if op.takes is None:
            return None
        if not op.has_json:
            return op.takes.model_validate(_once_each(request))
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise Refused(400, "send JSON: content-type application/json")
        return op.takes.model_validate_json(await request.body(), strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(p) for p in first["loc"])
        raise Refused(400, f"{where}: {first['msg']}" if where else first["msg"]) from error
    except ClientDisconnect as error:
        raise Refused(413, "the body is too large or was cut off") from error


async def _file(op: Operation, request: Request) -> IO[bytes] | None:
    """Return the body of an upload, from its first byte; whoever takes it closes it."""
    if not op.uploads:
        return None
    file = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115
    try:
        async for piece in request.stream():
            file.write(piece)
    except ClientDisconnect as error:
        file.close()
        raise Refused(413, f"more than {op.uploads >> 20} MiB, or cut off") from error
    file.seek(0)
    return file


def _once_each(request: Request) -> dict[str, str]:
    pairs = request.query_params.multi_items()
    if len({key for key, _ in pairs}) < len(pairs):
        raise Refused(400, "a key of the query appears twice")
    return {key: value for key, value in pairs if value != ""}


def openapi(operations: Sequence[Operation], version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the interface."""
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {"Error": _ERROR}
    for op in operations:
        paths.setdefault(ROOT + op.path, {})[op.method.lower()] = _described(op, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"lineguard dashboard ({package})",
            "version": version,
            "license": {"name": "AGPL-3.0-or-later", "identifier": "AGPL-3.0-or-later"},
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "session": {"type": "apiKey", "in": "cookie", "name": "lineguard"},
                "token": {"type": "apiKey", "in": "header", "name": CSRF_HEADER},
            },
            "schemas": schemas,
        },
    }


_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
}


def _described(op: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the page of an operation; parts of its body's schema go to the shared ones."""
    refusal = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    described: dict[str, Any] = {
        "operationId": f"{op.method.lower()}{op.path.replace('/', '_').replace('{id}', 'one')}",
        "summary": op.says,
        "description": f"Role: {op.role.word}.",
        "security": [{"session": []} if op.method == "GET" else {"session": [], "token": []}],
        "parameters": _parameters(op),
        "responses": {
            "200": {"description": "As asked.", "content": {op.gives: {"schema": _answer(op)}}},
            **{code: {"description": s, "content": refusal} for code, s in _REFUSALS.items()},
        },
    }
    if op.uploads:
        content: dict[str, Any] = {"application/octet-stream": {}}
        described["requestBody"] = {"required": True, "content": content}
    if op.has_json and op.takes is not None:
        schema = op.takes.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return described


def _answer(op: Operation) -> dict[str, Any]:
    """Return what is promised of an answer: JSON is always an object, a table is text."""
    if op.gives == "application/json":
        return {"type": "object"}
    return {"type": "string"} if op.gives.startswith("text/") else {}


def _parameters(op: Operation) -> list[dict[str, Any]]:
    named: list[dict[str, Any]] = []
    if "{id}" in op.path:
        schema = {"type": "string", "maxLength": 64}
        named.append({"name": "id", "in": "path", "required": True, "schema": schema})
    if op.takes is not None and not op.has_json:
        page = op.takes.model_json_schema()
        for key, schema in page.get("properties", {}).items():
            named.append(
                {
                    "name": key,
                    "in": "query",
                    "required": key in page.get("required", ()),
                    "schema": schema,
                }
            )
    return named
