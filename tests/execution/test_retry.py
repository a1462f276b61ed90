"""What passes is waited out and no longer; what lies in the data is told from what lies around it."""

from __future__ import annotations

import errno
import os

import pytest

from anonlib.errors import AccessDenied, Changed, LinkRefused, NotFound, SandboxUnavailable, StorageError, Unavailable
from anonlib.execution import retry
from anonlib.execution.retry import describe, is_infrastructure_error, with_retries

OF_THE_DATA = (
    NotFound("gone"),
    Changed("changed"),
    LinkRefused("a link"),
    OSError("Corrupt snappy compressed data."),
    ValueError("x"),
    MemoryError(),
)
OF_THE_PLACE = (
    StorageError("The disk is full."),
    AccessDenied("denied"),
    Unavailable("busy"),
    SandboxUnavailable("no decoder"),
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    OSError(errno.EIO, os.strerror(errno.EIO)),
    OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
)


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    return pauses


def test_patience_lasts_minutes_and_ends(waited: list[float]) -> None:
    def never() -> None:
        raise Unavailable("busy")

    with pytest.raises(Unavailable):
        with_retries(never)
    assert len(waited) == len(retry.PAUSES_S) and 60 < sum(waited) < 300
    assert all(pause / 2 <= one <= pause for one, pause in zip(waited, retry.PAUSES_S, strict=True))
    first = list(waited)
    with pytest.raises(Unavailable):
        with_retries(never)
    assert waited[len(first) :] != first, "workers do not come back in step"


@pytest.mark.parametrize("error", [one for one in (*OF_THE_DATA, *OF_THE_PLACE) if not isinstance(one, Unavailable)])
def test_what_does_not_pass_is_not_waited_for(error: Exception, waited: list[float]) -> None:
    def fails() -> None:
        raise error

    with pytest.raises(type(error)):
        with_retries(fails)
    assert waited == []


def test_what_lies_in_the_data_is_told_from_what_lies_around_it() -> None:
    assert [is_infrastructure_error(one) for one in OF_THE_DATA] == [False] * len(OF_THE_DATA)
    assert [is_infrastructure_error(one) for one in OF_THE_PLACE] == [True] * len(OF_THE_PLACE)


def test_a_failure_of_the_machine_is_a_sentence_about_it() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x")
    assert describe(full) == "No space left on device on this machine"
    assert (
        describe(SandboxUnavailable("no decoder")) == "no decoder" and describe(ValueError("Ada Quill")) == "ValueError"
    )
