"""Whether a cluster has room for the actors that a job asks for, before and while it runs: Ray Data waits for ever.

Room is counted machine by machine: an actor takes one CPU and its GPUs of one machine, and a part of a GPU is never put
together from two of them, so three actors of 0.4 on one GPU are one too many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import floor
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

from anonlib.errors import ConfigError, JobError

_STEPS = 10_000  # Ray counts parts of a GPU in these
_PAUSE_S = 2.0
_LOOK_S = 5.0

Row = TypeVar("Row")


@dataclass(frozen=True)
class ClusterNode:
    """One node of a cluster: what it gives to actors."""

    cpus: float
    gpus: float = 0.0

    def room(self, num_gpus: float) -> int:
        """How many actors fit, of one CPU and `num_gpus` GPUs each."""
        cpus = floor(self.cpus)
        if num_gpus == 0:
            return cpus
        each = round(num_gpus * _STEPS)
        on_gpus = floor(self.gpus) * (_STEPS // each) if num_gpus < 1 else floor(self.gpus) // (each // _STEPS)
        return min(cpus, on_gpus)


def actor_capacity(machines: Sequence[ClusterNode], num_gpus: float) -> int:
    """How many actors of one CPU and `num_gpus` GPUs fit on all machines."""
    return sum(one.room(num_gpus) for one in machines)


def check_shape(actors: int | None, num_gpus: float, machines: Sequence[ClusterNode]) -> None:
    """Raise ConfigError for a shape on which Ray would wait for ever; None: as many actors as fit, but one at least."""
    fit = actor_capacity(machines, num_gpus)
    if fit >= (actors or 1):
        return
    cpus, gpus = sum(one.cpus for one in machines), sum(one.gpus for one in machines)
    there = f"{cpus:g} CPUs and {gpus:g} GPUs on {len(machines)} machine{'' if len(machines) == 1 else 's'}"
    wanted = "an actor needs" if actors is None else f"ray.actors is {actors}, each with"
    share = f"1 CPU and {num_gpus:g} GPUs of one machine" if num_gpus else "1 CPU"
    advice = f"give at most {fit}" if fit else "it has no room for one"
    raise ConfigError(f"{wanted} {share}, but the cluster has {there}; {advice}")


def wait_for_room(
    actors: int | None,
    num_gpus: float,
    machines: Callable[[], Sequence[ClusterNode]],
    seconds: float,
    say: Callable[[str], None],
) -> int:
    """How many actors fit, once all of them do or `seconds` are over: machines may still be on their way.

    Then those begin that fit, which `say` is told, since machines that come later get theirs. Raises ConfigError if
    none fits.
    """
    until, told = time.monotonic() + seconds, False
    while (fit := actor_capacity(machines(), num_gpus)) < (actors or 1) and time.monotonic() < until:
        if not told:
            say(f"the cluster has room for {fit} of {actors or 'its'} actors; waiting up to {seconds:g} s for machines")
            told = True
        time.sleep(min(_PAUSE_S, max(until - time.monotonic(), 0)))
    check_shape(None, num_gpus, machines())
    if actors is not None and fit < actors:
        say(f"{fit} of {actors} actors begin; the others follow when the cluster has room for them")
    return fit


def fail_when_no_nodes(
    rows: Iterator[Row], room: Callable[[], int], seconds: float, say: Callable[[str], None], look: float = _LOOK_S
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
