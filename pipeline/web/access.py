"""Who is let in, and what every request must be: its host, its size, its token."""

from __future__ import annotations

import hmac
import ipaddress
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.web.desk import Desk, Person, Role

COOKIE = "lineguard"
CSRF_HEADER = "x-csrf-token"
LOCAL = "local"
MAX_BODY_BYTES = 64 * 1024
FAILURES, FAILURES_S = 5, 60.0
SAFE = ("GET", "HEAD")

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    b"content-security-policy": _CSP.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=()",
}


class Refused(Exception):
    """A request that is not served: status and one line."""

    def __init__(self, status: int, said: str, retry_s: int | None = None) -> None:
        super().__init__(said)
        self.status = status
        self.retry_s = retry_s

    def answer(self) -> JSONResponse:
        headers = {} if self.retry_s is None else {"Retry-After": str(self.retry_s)}
        return JSONResponse({"error": str(self)}, self.status, headers)


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    """Decides who somebody is and whether a request may change anything.

    Attributes:
        open_here: without any account, whoever sits at this machine is an engineer.
        secure: the cookie travels over TLS only.
    """

    desk: Desk
    open_here: bool
    secure: bool

    def person(self, request: Request) -> Person | None:
        """Return who asks, or None."""
        if self.desk.has_accounts:
            return self.desk.person(request.cookies.get(COOKIE, ""))
        if self.open_here and _is_loopback(request.client.host if request.client else ""):
            return Person(LOCAL, Role.ENGINEER)
        return None

    def admit(self, request: Request, least: Role) -> Person:
        """Return who asks.

        Raises:
            Refused: nobody, with too small a role, or from another site.
        """
        person = self.person(request)
        if person is None:
            raise Refused(401, "log in first")
        if person.role < least:
            raise Refused(403, f"this asks for the role {least.word}; yours is {person.role.word}")
        if request.method not in SAFE:
            self.check_token(request)
        return person

    def check_token(self, request: Request) -> None:
        """Raise Refused unless the request carries the token that only our own pages can read."""
        given = request.headers.get(CSRF_HEADER, "")
        if not hmac.compare_digest(given.encode(), self.token(request).encode()):
            raise Refused(403, f"the header {CSRF_HEADER} is missing or old; reload the page")

    def token(self, request: Request) -> str:
        """Return the token that belongs to this session."""
        return self.desk.csrf(request.cookies.get(COOKIE, "") or LOCAL)


class Attempts:
    """Counts failed logins: five a minute for each name and each address, then a pause."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._lock = threading.Lock()
        self._failed: dict[str, deque[float]] = {}

    def check(self, *keys: str) -> None:
        """Raise Refused while one of the keys has failed too often."""
        with self._lock:
            self._forget()
            for key in keys:
                times = self._failed.get(key, ())
                if len(times) >= FAILURES:
                    wait_s = int(FAILURES_S - (self._now_s() - min(times))) + 1
                    raise Refused(429, f"too many attempts; wait {wait_s} s", wait_s)

    def failed(self, *keys: str) -> None:
        """Note a failed login."""
        with self._lock:
            for key in keys:
                self._failed.setdefault(key, deque(maxlen=FAILURES)).append(self._now_s())

    def succeeded(self, *keys: str) -> None:
        """Take back the newest failure of each: it was none."""
        with self._lock:
            for key in keys:
                if times := self._failed.get(key):
                    times.pop()

    def _forget(self) -> None:
        since = self._now_s() - FAILURES_S
        for times in self._failed.values():
            while times and times[0] < since:
                times.popleft()
        self._failed = {key: times for key, times in self._failed.items() if times}


class Wall:
    """The outermost layer: known hosts only, small bodies only, strict headers on every answer.

    Args:
        hosts: names under which it may be reached.
        uploads: bytes at most of the body where files are sent to, by path.
    """

    def __init__(
        self, app: ASGIApp, hosts: frozenset[str], uploads: Mapping[str, int] | None = None
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._uploads = dict(uploads or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _with_headers(send)
        headers = {k: v.decode("latin-1") for k, v in scope["headers"]}
        most = self._uploads.get(scope["path"], MAX_BODY_BYTES)
        if _host(headers.get(b"host", "")) not in self._hosts:
            await _refuse(400, "this host name is not known here; see --allow-host")(
                scope, receive, answer
            )
        elif not _fits(headers.get(b"content-length"), most):
            await _refuse(413, f"more than {most} bytes")(scope, receive, answer)
        else:
            await self._app(scope, _bounded(receive, most), answer)


def _bounded(receive: Receive, most: int) -> Receive:
    """Cut off a body that says nothing of its length and does not end."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            return {"type": "http.disconnect"}
        return message

    return limited


def _with_headers(send: Send) -> Send:
    async def answer(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            named = {key for key, _ in message["headers"]}
            extra = {k: v for k, v in _HEADERS.items() if k not in named}
            if b"cache-control" not in named:
                extra[b"cache-control"] = b"no-store"
            message["headers"] = [*message["headers"], *extra.items()]
        await send(message)

    return answer


def _refuse(status: int, said: str) -> JSONResponse:
    return JSONResponse({"error": said}, status)


def _host(header: str) -> str:
    """Return the name without the port; an IPv6 address keeps its brackets."""
    if header.startswith("["):
        return "".join(header.partition("]")[:2]).lower()
    return header.partition(":")[0].lower()


def _fits(length: str | None, most: int) -> bool:
    if length is None:
        return True
    return length.isascii() and length.isdigit() and len(length) < 20 and int(length) <= most


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
