"""Access to the review page, which shows originals: only the browser that opened its address gets in.

The page is open to every user of the machine, so the address holds a key behind a #, which browsers do not send. The
page exchanges it once for a token, and sends that in a header: a cookie would go to every port of 127.0.0.1. Host must
be the page's (DNS rebinding), and a request that changes something must come from the page itself.
"""

from __future__ import annotations

import hmac
import secrets
from threading import Lock

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
ASSETS = {"/": "page.html", **{f"/{name}": name for name in ("page.css", "page.js", "token.js", "views.js")}}
"""The page's files by path. They hold nothing of a release: a browser asks for them before it has a token."""
EXCHANGE = "/session"
_OWN = ("none", "same-origin")


class Guard:
    """Passes requests of this page at 127.0.0.1:`port` with the token that the `key` was exchanged for.

    Key and token are of one run of the page; those of an earlier run are refused.
    """

    def __init__(self, app: ASGIApp, port: int, key: str) -> None:
        self.app, self.key = app, key
        self.hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._token: str | None = None
        self._exchanging = Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer: ASGIApp = self._answer(Request(scope)) or self.app
        await answer(scope, receive, guarded)

    def _answer(self, request: Request) -> Response | None:
        """The answer in the page's place, None where the page may answer."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        changes = request.method not in ("GET", "HEAD")
        foreign = origin != f"http://{host}" if origin is not None else changes
        if host not in self.hosts or foreign or request.headers.get("sec-fetch-site", "none") not in _OWN:
            return PlainTextResponse("This page answers only to itself.\n", 403)
        if request.method == "GET" and request.url.path in ASSETS:
            return None
        if request.method == "POST" and request.url.path == EXCHANGE:
            return self._exchange(_bearer(request.headers))
        if self._token is None or not _same(_bearer(request.headers), self._token):
            return _refusal("open the address that `anonlib review` printed, with its key")
        return None

    def _exchange(self, key: str) -> Response:
        """A token for the key, the first time."""
        if not _same(key, self.key):
            return _refusal("this is not the key that `anonlib review` printed")
        with self._exchanging:
            if self._token is not None:
                return _refusal("this address was opened before; end the review by Ctrl-C and start it again")
            self._token = secrets.token_urlsafe(32)
            return JSONResponse({"token": self._token})


def _bearer(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token if scheme == "Bearer" else ""


def _same(received: str, expected: str) -> bool:
    return hmac.compare_digest(received.encode(), expected.encode())


def _refusal(why: str) -> Response:
    return JSONResponse({"problem": why}, 403)
