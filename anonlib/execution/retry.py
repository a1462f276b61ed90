"""What passes is waited out, what lasts stops the job, and only what lies in the data is held against a shard.

A store that is down for a minute must not cost a restart, and never a quarantine: a quarantine is for good. So whoever
meets a storage that is busy or out of reach tries again after pauses that double, up to about three minutes in all, and
not in step with the other workers (Brooker, "Exponential backoff and jitter", AWS Architecture Blog, 2015).
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

_Done = TypeVar("_Done")


def with_retries(work: Callable[[], _Done]) -> _Done:
    """What `work` returns, which must be safe to repeat; raises Unavailable once patience is at its end."""
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
