"""The page of a review: a few routes over a Session, and the files that a browser needs.

Starlette rather than a toolkit like NiceGUI: a page that shows originals should be small enough to be read whole. This
one needs no websocket, no inline script and no third party's bundle, so the strictest content security policy holds,
and each route can be tested without a browser.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from anonlib.audit.review_sample import CONFIDENCE
from anonlib.errors import AnonlibError, ImageProblem, JobError, StorageError, contained, kind_and_message
from anonlib.execution.base import UnitResult
from anonlib.review.session import Session, why_not
from anonlib.synthesis.redact import GROW
from anonlib.workspace.decisions import Verdict
from anonlib.workspace.secrets import release_name

_ASSETS = Path(__file__).parent / "assets"


class ReviewRequest(BaseModel):
    """What the page asks for an image; `verdict` None takes back what stands."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: int
    verdict: Verdict | None
    boxes: list[list[float]] = []


class Applying:
    """The decisions being carried out, in a thread of their own: how far, and what came of it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._lock = Lock()
        self.state: dict[str, Any] | None = None

    @property
    def busy(self) -> bool:
        return self.state is not None and self.state["result"] is None and self.state["problem"] is None

    def start(self) -> None:
        """Begin, unless it goes on already."""
        with self._lock:
            if not self.busy:
                self.state = {"done": 0, "shards": 0, "result": None, "problem": None}
                Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        assert self.state is not None
        try:
            with contained("carrying out decisions") as failure:
                self.state["result"] = asdict(self.session.apply(self._report))
        except AnonlibError as error:
            self.state["problem"] = str(error)
        if failure.error is not None:
            self.state["problem"] = kind_and_message(failure.error)

    def _report(self, stage: str, outcome: UnitResult, units: int) -> None:
        assert self.state is not None
        if stage == "render" and outcome.error is None:
            self.state |= {"done": self.state["done"] + 1, "shards": units}


def make_app(session: Session) -> Starlette:
    """The page; whoever serves it puts a Guard before it."""
    applying = Applying(session)

    def totals() -> dict[str, Any]:
        """What is said of the review as a whole."""
        return {
            "judged": asdict(session.judged()),
            "confidence": CONFIDENCE,
            "waiting": sum(not session.carried_out(number) for number in range(len(session.images))),
            "applying": applying.state,
        }

    def everything(request: Request) -> Response:
        images = [describe(session, number) for number in range(len(session.images))]
        about = {"release": release_name(session.job.config), "who": session.who, "grow": GROW}
        more = {"lists": session.lists, "quarantined": session.quarantined, "totals": totals()}
        more |= {"earlier": not applying.busy and bool(session.waiting())}
        return JSONResponse(about | more | {"images": images})

    def decide(asked: ReviewRequest) -> Response:
        if applying.busy:
            raise JobError("the decisions so far are being carried out; wait until that is done")
        if not 0 <= asked.image < len(session.images):
            raise JobError("there is no such image")
        if asked.verdict is None:
            session.undo(asked.image)
        else:
            session.decide(asked.image, asked.verdict, asked.boxes)
        return JSONResponse({"image": describe(session, asked.image), "totals": totals()})

    async def on_decide(request: Request) -> Response:
        asked = ReviewRequest.model_validate_json(await request.body())
        return await run_in_threadpool(decide, asked)

    def apply(request: Request) -> Response:
        applying.start()
        return JSONResponse(totals())

    def picture(request: Request) -> Response:
        number, kind = request.path_params["number"], request.path_params["kind"]
        if not 0 <= number < len(session.images) or kind not in ("original", "released"):
            return Response(status_code=404)
        if applying.busy:
            raise JobError("the release is being made again; its images come back when that is done")
        show: Callable[..., bytes] = getattr(session.pictures, kind)
        try:
            return Response(show(session.images[number]), media_type="image/jpeg")
        except ImageProblem as problem:
            return JSONResponse({"problem": str(problem)}, 404)

    def refused(request: Request, error: Exception) -> Response:
        said = "the page asked for something that is no decision" if isinstance(error, ValidationError) else str(error)
        return JSONResponse({"problem": said}, 409)

    return Starlette(
        routes=[
            Route("/", lambda request: FileResponse(_ASSETS / "page.html")),
            Route("/page.css", lambda request: FileResponse(_ASSETS / "page.css")),
            Route("/page.js", lambda request: FileResponse(_ASSETS / "page.js")),
            Route("/token.js", lambda request: FileResponse(_ASSETS / "token.js")),
            Route("/views.js", lambda request: FileResponse(_ASSETS / "views.js")),
            Route("/state", everything),
            Route("/totals", lambda request: JSONResponse(totals())),
            Route("/image/{number:int}/{kind}", picture),
            Route("/decide", on_decide, methods=["POST"]),
            Route("/apply", apply, methods=["POST"]),
        ],
        exception_handlers={JobError: refused, StorageError: refused, ValidationError: refused},
    )


def describe(session: Session, number: int) -> dict[str, Any]:
    """One image as the page shows it."""
    image, decision = session.images[number], session.decision(number)
    row = image.row
    return {
        "name": image.key,
        "shard": image.shard,
        "status": row["status"],
        "reason": why_not(image),
        "size": image.size,
        "released": row["output_sha256"] is not None,
        "faces": [{name: face[name] for name in ("box", "method", "fallback")} for face in row["faces"]],
        "allowed": session.allowed(number),
        "verdict": decision.verdict if decision else None,
        "boxes": decision.boxes if decision else session.suggested.get(number, []),
        "carried_out": session.carried_out(number),
    }
