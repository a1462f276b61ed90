"""Storage that is busy is waited for, and no longer; what lies in the data is told from what lies around it."""

from __future__ import annotations

import errno
import os

import pytest

from anonlib.errors import AccessDenied, Changed, LinkRefused, NotFound, SandboxUnavailable, StorageError, Unavailable
from anonlib.execution import retry
from anonlib.execution.retry import describe, is_infrastructure_error, with_retries

OF_THE_DATA = (
    *(NotFound("gone"), Changed("changed"), LinkRefused("a link")),
    *(OSError("Corrupt snappy compressed data."), ValueError("x"), MemoryError()),
)
OF_THE_PLACE = (
    *(StorageError("The disk is full."), AccessDenied("denied"), SandboxUnavailable("no decoder")),
    *(OSError(number, os.strerror(number)) for number in (errno.ENOSPC, errno.EIO, errno.EMFILE)),
)


def test_patience_is_for_what_passes_lasts_minutes_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)

    def fail(error: Exception) -> None:
        raise error

    for _ in range(2):
        with pytest.raises(Unavailable):
            with_retries(lambda: fail(Unavailable("busy")))
    first, second = waited[: len(retry.PAUSES_S)], waited[len(retry.PAUSES_S) :]
    assert len(first) == len(second) and 60 < sum(first) < 300
    assert all(pause / 2 <= seconds <= pause for seconds, pause in zip(first, retry.PAUSES_S, strict=True))
    assert first != second, "workers do not come back in step"
    waited.clear()
    for error in (*OF_THE_DATA, *OF_THE_PLACE):
        with pytest.raises(type(error)):
            with_retries(lambda error=error: fail(error))
    assert waited == []


def test_what_lies_in_the_data_is_told_from_what_lies_around_it() -> None:
    assert not any(map(is_infrastructure_error, OF_THE_DATA))
    assert all(map(is_infrastructure_error, (*OF_THE_PLACE, Unavailable("busy"))))


def test_a_failure_is_a_sentence_that_names_no_file() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x")
    assert describe(full) == "No space left on device on this machine"
    assert describe(SandboxUnavailable("no decoder")) == "no decoder"
    assert describe(ValueError("Ada Quill")) == "ValueError"
