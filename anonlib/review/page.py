"""The page of a review: a few routes over a Session, and the files that a browser needs.

Starlette rather than a toolkit like NiceGUI: a page that shows originals should be small enough to be read whole. This
page needs no websocket, no inline script and no third party's bundle, so the strictest content security policy holds,
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

from anonlib.audit.statistics import CONFIDENCE
from anonlib.errors import AnonlibError, ImageProblem, JobError, StorageError, contained, kind_and_message
from anonlib.execution.base import UnitResult
from anonlib.review.guard import ASSETS
from anonlib.review.session import Session, why_not
from anonlib.synthesis.redact import GROW
from anonlib.workspace.decisions import Verdict
from anonlib.workspace.secrets import release_name

_FOLDER = Path(__file__).parent / "assets"


class ReviewRequest(BaseModel):
    """What the page asks for an image; `verdict` None takes back what stands."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: int
    verdict: Verdict | None
    boxes: list[list[float]] = []


class BackgroundApply:
    """The decisions being carried out in a thread: `state` has the progress, then the result or the problem."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._lock = Lock()
        self.state: dict[str, Any] | None = None

    @property
    def busy(self) -> bool:
        return self.state is not None and self.state["result"] is None and self.state["problem"] is None

    def start(self) -> None:
        """Begin, unless it is running."""
        with self._lock:
            if not self.busy:
                self.state = {"done": 0, "shards": 0, "result": None, "problem": None}
                Thread(target=self._run, args=(self.state,), daemon=True).start()

    def _run(self, state: dict[str, Any]) -> None:
        def report(stage: str, outcome: UnitResult, units: int) -> None:
            if stage == "render" and outcome.error is None:
                state.update(done=state["done"] + 1, shards=units)

        try:
            with contained("carrying out decisions") as failure:
                shards, changes = self.session.apply(report)
                state["result"] = {"shards": shards, "changes": [asdict(change) for change in changes]}
        except AnonlibError as error:
            state["problem"] = str(error)
        if failure.error is not None:
            state["problem"] = kind_and_message(failure.error)


def make_app(session: Session) -> Starlette:
    """The page; it must be served behind a Guard."""
    applying = BackgroundApply(session)

    def totals() -> dict[str, Any]:
        """Figures of the review as a whole."""
        return {
            "judged": asdict(session.judged()),
            "confidence": CONFIDENCE,
            "waiting": sum(not session.carried_out(number) for number in range(len(session.images))),
            "applying": applying.state,
        }

    def state(request: Request) -> Response:
        return JSONResponse(
            {
                "release": release_name(session.job.config),
                "who": session.who,
                "grow": GROW,
                "lists": session.lists,
                "quarantined": session.quarantined,
                "totals": totals(),
                "earlier": not applying.busy and bool(session.waiting()),
                "images": [describe(session, number) for number in range(len(session.images))],
            }
        )

    def decide(wish: ReviewRequest) -> Response:
        if applying.busy:
            raise JobError("the decisions so far are being carried out; wait until that is done")
        if not 0 <= wish.image < len(session.images):
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
        unreadable = isinstance(error, ValidationError)
        return JSONResponse({"problem": "this request is no decision" if unreadable else str(error)}, 409)

    def asset(request: Request) -> Response:
        return FileResponse(_FOLDER / ASSETS[request.url.path])

    return Starlette(
        routes=[
            *(Route(path, asset) for path in ASSETS),
            Route("/state", state),
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
