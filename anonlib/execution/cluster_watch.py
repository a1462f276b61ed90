"""A round whose cluster has lost every machine: said soon, and waited out for a while only.

Ray waits for machines without a word, and its own guard counts what moves, although a shard may take hours in which
nothing does. So somebody looks beside the rows whether there is a machine at all: while there is one, Ray brings lost
work back to it, and once there is none for too long the job ends with a sentence instead of with a scheduler's limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

from anonlib.errors import JobError

LOOK_S = 5.0

Row = TypeVar("Row")


def fail_when_no_nodes(
    rows: Iterator[Row], room: Callable[[], int], seconds: float, say: Callable[[str], None], look: float = LOOK_S
) -> Iterator[Row]:
    """The rows as they come; raises Deserted once there was no room for an actor for `seconds`.

    `room` is asked every `look` seconds in which no row came; `say` is told once when there is none and once when there
    is some again. The rows are pulled by a thread: whoever stops early lets it end with the next row.
    """
    came: SimpleQueue[tuple[Row] | BaseException | None] = SimpleQueue()
    enough = Event()
    Thread(target=_pull, args=(rows, came, enough), daemon=True).start()
    empty_since: float | None = None
    try:
        while True:
            try:
                item = came.get(timeout=look)
            except Empty:
                empty_since = _looked(room, empty_since, seconds, say)
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item[0]
    finally:
        enough.set()


def _pull(rows: Iterator[Row], came: SimpleQueue[tuple[Row] | BaseException | None], enough: Event) -> None:
    try:
        for row in rows:
            came.put((row,))
            if enough.is_set():
                return
    except BaseException as error:  # noqa: BLE001 - raised where the rows are read
        came.put(error)
    else:
        came.put(None)


def _looked(room: Callable[[], int], since: float | None, seconds: float, say: Callable[[str], None]) -> float | None:
    """Since when there is no machine (monotonic clock), None while there is one."""
    now = time.monotonic()
    if room() > 0:
        if since is not None:
            say("the cluster has a machine again; the job goes on")
        return None
    if since is None:
        say(f"the cluster has no machine left that an actor fits on; waiting up to {seconds:g} s for one")
        return now
    if now - since >= seconds:
        raise JobError(
            f"the cluster has had no machine that an actor fits on for {seconds:g} s; what is finished is kept, "
            "and the same command continues once there are machines"
        )
    return since
