"""Whether a cluster has room for a job's actors, for which Ray itself would wait for ever.

An actor takes one CPU and its GPUs of one machine: three actors of 0.4 GPUs do not fit on one GPU.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from math import floor
from typing import NamedTuple

from anonlib.config import RayConfig
from anonlib.errors import ConfigError, JobError

_STEPS = 10_000  # Ray counts parts of a GPU in these
_SMALL_BYTES = 1 << 30  # of input a core

_log = logging.getLogger(__name__)

Say = Callable[[str], None]


def fits_here(ray: RayConfig, size: int) -> bool:
    """Whether a job that leaves it open runs in this process: its input of `size` bytes is done before Ray pays off."""
    is_open = ray.actors is None and not ray.num_gpus and not (ray.address or os.environ.get("RAY_ADDRESS"))
    if not is_open or size > _SMALL_BYTES * len(os.sched_getaffinity(0)):
        return False
    _log.info("%.0f MB of input are few: the job runs in this process, without Ray (ray.actors)", size / 1e6)
    return True


class ClusterNode(NamedTuple):
    """What one node of a cluster gives to actors."""

    cpus: float
    gpus: float = 0.0


def actor_capacity(machines: Sequence[ClusterNode], num_gpus: float) -> int:
    """How many actors of one CPU and `num_gpus` GPUs fit on all machines."""
    if num_gpus == 0:
        return sum(floor(cpus) for cpus, _ in machines)
    if num_gpus < 1:
        each = _STEPS // round(num_gpus * _STEPS)
        return sum(min(floor(cpus), floor(gpus) * each) for cpus, gpus in machines)
    return sum(min(floor(cpus), floor(gpus) // round(num_gpus)) for cpus, gpus in machines)


def check_shape(actors: int | None, num_gpus: float, machines: Sequence[ClusterNode]) -> None:
    """Raise ConfigError for a shape on which Ray would wait for ever; None: as many actors as fit, but one at least."""
    fit = actor_capacity(machines, num_gpus)
    if fit >= (actors or 1):
        return
    cpus, gpus = (sum(numbers) for numbers in zip(*machines, strict=True)) if machines else (0, 0)
    resources = f"{cpus:g} CPUs and {gpus:g} GPUs on {len(machines)} machine{'' if len(machines) == 1 else 's'}"
    wanted = "an actor needs" if actors is None else f"ray.actors is {actors}, each with"
    share = f"1 CPU and {num_gpus:g} GPUs of one machine" if num_gpus else "1 CPU"
    advice = f"give at most {fit}" if fit else "it has no room for one"
    raise ConfigError(f"{wanted} {share}, but the cluster has {resources}; {advice}")


class NodeWatch:
    """Notices that a cluster has no machine, not yet or not any more: `room` is how many actors it holds now."""

    def __init__(self, room: Callable[[], int], seconds: float, say: Say) -> None:
        self._room, self._seconds, self._say = room, seconds, say
        self._empty_since: float | None = None

    def look(self) -> None:
        """Say when the last machine goes and when one comes. Raises JobError once there is none for `seconds`."""
        now, since = time.monotonic(), self._empty_since
        if self._room() > 0:
            if since is not None:
                self._say("the cluster has a machine; the job goes on")
            self._empty_since = None
        elif since is None:
            waiting = f"waiting up to {self._seconds:g} s for one"
            self._say(f"the cluster has no machine that an actor fits on; {waiting}")
            self._empty_since = now
        elif now - since >= self._seconds:
            raise JobError(
                f"the cluster has had no machine that an actor fits on for {self._seconds:g} s; what is finished is "
                "kept, and the same command continues once there are machines"
            )
