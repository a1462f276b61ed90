"""Which failures are retried, which stop the job, and which are held against a shard.

A storage that is busy or out of reach is tried again after pauses that double, up to about three minutes in all, with
jitter (Brooker, "Exponential backoff and jitter", AWS Architecture Blog, 2015). It must never cost a quarantine.
"""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from anonlib.errors import AnonlibError, ImageProblem, StorageError, Unavailable, kind_and_place

PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0)

_OF_THE_MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE),
    *(errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT, errno.EACCES, errno.EPERM),
}

_Result = TypeVar("_Result")


def with_retries(work: Callable[[], _Result]) -> _Result:
    """What `work` returns, which must be safe to repeat; raises Unavailable after the last pause."""
    for pause in PAUSES_S:
        try:
            return work()
        except Unavailable as error:
            wait = pause * random.uniform(0.5, 1.0)
            logging.getLogger(__name__).warning("%s Trying again in %.0f s.", error, wait)
            time.sleep(wait)
    return work()


def describe(error: Exception) -> str:
    """The sentence of a failure, which names no file: anonlib's own, the system's, or kind and place of any other."""
    if isinstance(error, AnonlibError):
        return str(error)
    if is_infrastructure_error(error) and isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__} on this machine"
    return kind_and_place(error)


def is_infrastructure_error(error: Exception) -> bool:
    """Whether a place, this machine or the job failed, and not the shard: every other one would fail like it."""
    if isinstance(error, StorageError):
        return not error.of_the_file
    if isinstance(error, AnonlibError):
        return not isinstance(error, ImageProblem)
    return isinstance(error, OSError) and error.errno in _OF_THE_MACHINE
