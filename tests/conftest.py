"""Fixtures that every test may ask for."""

import gc
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from botocore.loaders import create_loader
from botocore.session import Session
from hypothesis import HealthCheck, settings

from anonlib.models import runtime
from tests.support.clouds import Cloud, emulator
from tests.support.forgery import Forger
from tests.support.runs import Run, copied, finished, one_shard, people_tars
from tests.support.s3server import S3Server, running

# How fast an example is says how busy the machine is, not whether the code is right.
settings.register_profile("any machine", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Every engine is a real one of its own. Compiled networks are kept for the next one, which is a fifth of a job.
runtime._compiled = lru_cache(maxsize=64)(runtime._compiled)

# What botocore knows of the services is read once and not for every client: two thirds of what making one takes.
_api = create_loader()
Session._register_data_loader = lambda session: session.register_component("data_loader", _api)

__all__ = ["copied", "finished", "one_shard", "people_tars", "s3"]


def pytest_collection_finish() -> None:
    """What every import made stays, so the collector need not look through it all again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server of this session's own. It changes nothing globally: `with s3.acting_as(): ...` does."""
    with running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def gs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """An emulator of Google Cloud Storage; `with gs.acting(): ...` makes clients use it."""
    with emulator("gs", tmp_path_factory.mktemp("gs")) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def abfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """An emulator of Azure's blob storage; `with abfs.acting(): ...` makes clients use it."""
    with emulator("abfs", tmp_path_factory.mktemp("abfs")) as cloud:
        yield cloud


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries do not wait while a storage fails: those of boto3, of a stream and of a job."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.001)
    monkeypatch.setattr("anonlib.execution.retry.PAUSES_S", (0.001,) * 3)
    monkeypatch.setattr("anonlib.storage.objects.FIRST_PAUSE_S", 0.001)


@pytest.fixture
def forger(finished: Run, tmp_path: Path) -> Forger:
    """A copy of a finished release, to be tampered with."""
    return Forger(finished.output, tmp_path / "forged")


_WHOLE_JOBS = {"finished", "one_shard", "redacted", "folder_run", "tar_run", "small", "evidence"}
_JOB_FOLDERS = ("e2e", "faults", "jobs", "notebooks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by cost what has no mark of its own: `job` if it runs a whole job, else `unit`."""
    for item in items:
        if not any(item.get_closest_marker(name) for name in ("job", "cluster")):
            runs_job = _WHOLE_JOBS.intersection(getattr(item, "fixturenames", ())) or any(
                folder in item.path.parts for folder in _JOB_FOLDERS
            )
            item.add_marker("job" if runs_job else "unit")
