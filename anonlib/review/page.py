"""The page of a review: a few routes over a Session, and the files that a browser needs.

A page that shows originals should be small enough to be read whole: it needs no websocket, no inline script and no
third party's bundle, so the strictest content security policy holds. It is open to every user of the machine, so its
address holds a key behind a #, which browsers do not send. The page exchanges it once for a token, and sends that in a
header: a cookie would go to every port of 127.0.0.1. Host must be the page's (DNS rebinding), and a request that
changes something must come from the page itself.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anonlib.audit.review_queue import waiting
from anonlib.audit.statistics import CONFIDENCE
from anonlib.errors import ImageProblem, JobError, StorageError
from anonlib.review.session import Session, Strip, why_not
from anonlib.workspace.decisions import Verdict
from anonlib.workspace.schemas import CLIP, GROW
from anonlib.workspace.secrets import release_name

_SHOWN = ("box", "method", "fallback")
_FOLDER = Path(__file__).parent / "assets"
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


class ReviewRequest(BaseModel):
    """What the page asks for an image; `verdict` None takes back what stands."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: int
    verdict: Verdict | None
    boxes: list[list[float]] = []


def make_app(session: Session) -> Starlette:
    """The page; it must be served behind a Guard."""
    numbers = range(len(session.images))

    def totals() -> dict[str, Any]:
        late = sum(not session.carried_out(number) for number in numbers)
        judged = asdict(session.judged())
        return {"judged": judged, "confidence": CONFIDENCE, "waiting": late, "applying": session.applying}

    def state(request: Request) -> Response:
        earlier = not session.busy and bool(waiting(session.job, session.log))
        images = [describe(session, number) for number in numbers]
        known = {"release": release_name(session.job.config), "who": session.who, "grow": GROW, "lists": session.lists}
        later = {"quarantined": session.quarantined, "totals": totals(), "earlier": earlier, "images": images}
        return JSONResponse(known | later)

    def decide(wish: ReviewRequest) -> Response:
        if session.busy:
            raise JobError("the decisions so far are being carried out; wait until that is done")
        if wish.image not in numbers:
            raise JobError("there is no such image")
        if wish.verdict is None:
            session.undo(wish.image)
        else:
            session.decide(wish.image, wish.verdict, wish.boxes)
        return JSONResponse({"image": describe(session, wish.image), "totals": totals()})

    async def on_decide(request: Request) -> Response:
        wish = ReviewRequest.model_validate_json(await request.body())
        return await run_in_threadpool(decide, wish)

    def apply(request: Request) -> Response:
        session.start_applying()
        return JSONResponse(totals())

    def picture(request: Request) -> Response:
        number, kind = request.path_params["number"], request.path_params["kind"]
        if number not in numbers or kind not in ("original", "released"):
            return Response(status_code=404)
        if session.busy:
            raise JobError("the release is being made again; its images come back when that is done")
        try:
            return Response(session.pictures.show(session.images[number], kind), media_type="image/jpeg")
        except ImageProblem as problem:
            return JSONResponse({"problem": str(problem)}, 404)

    def refused(request: Request, error: Exception) -> Response:
        unreadable = isinstance(error, ValidationError)
        return JSONResponse({"problem": "this request is no decision" if unreadable else str(error)}, 409)

    return Starlette(
        routes=[
            *(Route(path, lambda request: FileResponse(_FOLDER / ASSETS[request.url.path])) for path in ASSETS),
            Route("/state", state),
            Route("/totals", lambda request: JSONResponse(totals())),
            Route("/image/{number:int}/{kind}", picture),
            Route("/decide", on_decide, methods=["POST"]),
            Route("/apply", apply, methods=["POST"]),
        ],
        exception_handlers=dict.fromkeys((JobError, StorageError, ValidationError), refused),
    )


def describe(session: Session, number: int) -> dict[str, Any]:
    """One image as the page shows it."""
    image, decision = session.images[number], session.decision(number)
    row = image.row
    strip = Strip(row) if row["media"] == CLIP and row["frames"] else None
    faces = strip.faces() if strip else [{name: face[name] for name in _SHOWN} for face in row["faces"]]
    return {
        "name": image.key,
        "shard": image.shard,
        "status": row["status"],
        "reason": why_not(image),
        "size": strip.size if strip else image.size,
        "released": row["output_sha256"] is not None,
        "faces": faces,
        "allowed": session.allowed(number),
        "verdict": decision.verdict if decision else None,
        "boxes": decision.boxes if decision else session.suggested.get(number, []),
        "carried_out": session.carried_out(number),
    }


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
