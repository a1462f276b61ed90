"""Who may talk to the review page, which shows originals: the person who was given its address, and nobody else.

Bound to 127.0.0.1 it is still open to every user of the machine and to every page in the browser. So the address holds
a key, which becomes a cookie; Host must be the page's own, else a foreign name could be made to point here (DNS
rebinding); and whatever changes something must come from the page itself. The browser is told to fetch nothing from
elsewhere and to store nothing.
"""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Lets through what comes from this page at 127.0.0.1:`port` with the `key`."""

    def __init__(self, app: ASGIApp, port: int, key: str) -> None:
        self.app, self.key = app, key
        self.hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self.cookie = f"anonlib-review-{port}"

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
        """What to say instead of the page, None if the page may answer."""
        if self._foreign(request.headers, request.method):
            return PlainTextResponse("This page answers only to itself.\n", 403)
        given = request.query_params.get("key")
        if request.method == "GET" and request.url.path == "/" and given is not None and self._fits(given):
            response = RedirectResponse("/", 303)
            response.set_cookie(self.cookie, self.key, httponly=True, samesite="strict")
            return response
        if not self._fits(request.cookies.get(self.cookie, "")):
            return PlainTextResponse("Open the address that `anonlib review` printed, with its key.\n", 403)
        return None

    def _fits(self, key: str) -> bool:
        return hmac.compare_digest(key.encode(), self.key.encode())

    def _foreign(self, headers: Headers, method: str) -> bool:
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in self.hosts or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return True
        return origin != f"http://{host}" if origin is not None else method not in ("GET", "HEAD")
