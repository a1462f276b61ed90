"""A person looks at a sample of the release and at what was held back, and decides; on this machine, until Ctrl-C."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from anonlib.errors import JobError

if TYPE_CHECKING:
    from anonlib.audit.missed_faces import Found
    from anonlib.config import JobConfig

HOST = "127.0.0.1"
SAMPLE = 300
"""Images of the sample; with nothing wrong among them, at most 1 % of the release is, at 95 % confidence."""


def review(
    config: JobConfig,
    say: Callable[[str], None],
    *,
    sample: int = SAMPLE,
    second: Found | None = None,
    port: int = 0,
    who: str = "",
) -> None:
    """Serve the review of a job's release at a free port, or at `port`; `say` gets a sentence with the address. Blocks.

    The address opens the page in one browser, once. `second`: what a second look found, a list of its own on the page.
    Raises JobError where there is nothing to review, the port is taken, or what serves pages is not installed.
    """
    try:
        import uvicorn

        from anonlib.review.page import Guard, make_app
        from anonlib.review.session import Session
    except ModuleNotFoundError as error:
        install = "install it by `pip install 'anonlib[review]'`"
        raise JobError(f"the review page needs {error.name}, which is not here; {install}") from None
    session = Session(config, sample=sample, second=second, who=who)
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        raise JobError(f"port {port} of {HOST} cannot be used: {error.strerror}") from None
    with listening, suppress(KeyboardInterrupt):
        chosen, key = listening.getsockname()[1], secrets.token_urlsafe(16)
        app = Guard(make_app(session), chosen, key)
        settings = uvicorn.Config(app, log_level="warning", lifespan="off", ws="none", timeout_graceful_shutdown=1)
        say(f"open http://{HOST}:{chosen}/#{key} in a browser of this machine; Ctrl-C ends the review")
        uvicorn.Server(settings).run(sockets=[listening])
