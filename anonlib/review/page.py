"""The page of a review: a few routes over a Session, and the files that a browser needs.

A page that shows originals should be small enough to be read whole: it needs no websocket, no inline script and no
third party's bundle, so the strictest content security policy holds.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from anonlib.audit.review_queue import waiting
from anonlib.audit.statistics import CONFIDENCE
from anonlib.errors import ImageProblem, JobError, StorageError
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
