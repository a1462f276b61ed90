"""Whole jobs for the tests: a small dataset of people, one finished run of it, and what to look at afterwards."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
import pytest

from anonlib.config import JobConfig
from anonlib.errors import JobError, StorageError
from anonlib.job import Job, Summary
from anonlib.methods import METHODS
from anonlib.storage import OURS, StorageOptions, open_storage
from tests.support import photos

Made = TypeVar("Made")

SECRET = "5d1c0a93e7b2486f" * 4
SALT = "e60b7f2d94c8a135" * 4
"""Of all workspaces here, so that runs of a job in several places may be compared byte for byte."""
PEOPLE, SHOTS, SHARDS = 12, 2, 3

_DRIVER = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from anonlib.config import load_config
from anonlib.job import Job
config = load_config(Path(sys.argv[1]))
if config.ray.actors != 0:
    import ray
    ray.init(address="local", num_cpus=2, object_store_memory=120 << 20, include_dashboard=False, log_to_driver=False,
             _node_ip_address="127.0.0.1")
def report(stage, outcome, units):
    print(stage, outcome.unit, outcome.error or "", flush=True)
summary = Job(config, report=report).run()
print(json.dumps(asdict(summary)), flush=True)
sys.exit(summary.code)
"""


@dataclass(frozen=True)
class Run:
    """A finished job and its three places."""

    config: JobConfig
    summary: Summary
    input: Path
    workspace: Path
    output: Path


def write_people(folder: Path) -> Path:
    """What `people_tars` is: its tars, written into a folder."""
    shots = photos.people(PEOPLE, SHOTS)
    for shard in range(SHARDS):
        content = photos.members(f"empty-{shard}", photos.nobody(), {"caption": "nobody"})
        for number, (name, pixels) in list(enumerate(shots))[shard::SHARDS]:
            sidecar = {"person": name, "caption": f"photo {number}", "gps": "52.5163,13.3777"}
            content += photos.members(f"holiday-{number:03d}", pixels, sidecar)
        photos.tar(folder / f"{shard:05d}.tar", content)
    return folder


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Made]) -> Made:
    """What `make` makes of a new folder by this name, once for all workers of this run of the tests; look, do not
    touch. Who asks while another makes it waits."""
    place = factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place
    kept = place / f"{name}.pickle"
    with (place / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            folder = place / name
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed at it
            folder.mkdir()
            made = make(folder)
            kept.write_bytes(pickle.dumps(made))
            return made
        return pickle.loads(kept.read_bytes())


@pytest.fixture(scope="session")
def people_tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tars with two photos each of twelve labelled people, and a photo of nobody in each."""
    return made_once(tmp_path_factory, "input", write_people)


@pytest.fixture(scope="session")
def finished(people_tars: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One clean serial run of `people_tars`."""
    return made_once(tmp_path_factory, "finished", lambda folder: run_job(people_tars, folder))


@pytest.fixture(scope="session")
def one_shard(people_tars: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One clean serial run of the first tar alone: a photo each of eight people, and of nobody."""

    def run(folder: Path) -> Run:
        (folder / "input").mkdir()
        shutil.copy(people_tars / "00000.tar", folder / "input")
        return run_job(folder / "input", folder)

    return made_once(tmp_path_factory, "one-shard", run)


def job(source: Path | str, root: Path | str, **changes: Any) -> JobConfig:
    """k-diff by averages with k=2, serial, with output and workspace below `root`; `changes` are top-level keys.

    A redaction plans no persons, so it needs no labels.
    """
    labelled = METHODS[changes.get("method", {}).get("name", "k-diff")].synthesis
    document: dict[str, Any] = {
        "input": {"uri": str(source), "subject_field": "person" if labelled else None},
        "output": {"uri": f"{root}/release", "release": "tests"},
        "workspace": {"uri": f"{root}/workspace"},
        "method": {"name": "k-diff", "k": 2, "texture": "average"},
        "keep_fields": ["caption"],
        "too_few": "ellipse",
        "ray": {"actors": 0},
    }
    if "secret" not in changes and "://" not in str(root):
        Path(root).mkdir(parents=True, exist_ok=True)
        secret = Path(root) / "secret"
        secret.write_text(SECRET)
        changes["secret"] = {"file": str(secret)}
    config = JobConfig.model_validate(document | changes)
    if config.secret.named and "://" not in str(root):
        salted(config)
    return config


def salted(config: JobConfig, options: StorageOptions | None = None) -> JobConfig:
    """The job, its workspace with the salt of all others here; a job that makes its secret makes its salt, too."""
    if config.workspace.uri.startswith("s3://") == (options is not None):
        open_storage(config.workspace.uri, options or StorageOptions(), private=True).claim("salt", SALT.encode())
    return config


def run_job(source: Path, root: Path, **changes: Any) -> Run:
    """A whole run; its salt is that of all others here, so that every run of a test draws the same."""
    config = salted(job(source, root, **changes))
    return Run(config, Job(config).run(), source, root / "workspace", root / "release")


def run_through(config: JobConfig) -> Summary:
    """Run a job again as often as it takes, ten times at most, while its storage fails; each end is one sentence."""
    for _ in range(9):
        try:
            return Job(config).run()
        except (JobError, StorageError) as error:
            assert "\n" not in str(error)
    return Job(config).run()


def planned_copy(run: Run, root: Path, **changes: Any) -> JobConfig:
    """The job of `run` with its scan and plan, and an output of its own that is still empty."""
    config = job(run.input, root, **changes)
    shutil.copytree(run.workspace, root / "workspace", dirs_exist_ok=True)
    return config


def finished_copy(run: Run, root: Path) -> JobConfig:
    """The finished job of `run` with places of its own below `root`."""
    shutil.copytree(run.output, root / "release")
    return planned_copy(run, root)


@pytest.fixture
def copied(finished: Run, tmp_path: Path) -> JobConfig:
    """The finished job with places of its own, to be changed."""
    return finished_copy(finished, tmp_path)


def rendered_but(run: Run, root: Path, *shards: str) -> JobConfig:
    """The job of `run` below `root`, these shards of it still to be rendered: as a kill leaves it."""
    config, release = finished_copy(run, root), root / "release"
    (release / "certificate.json").unlink()
    for shard in shards:
        for path in (f"commits/{shard}.json", f"manifest/{shard}.parquet", f"data/{shard}.tar"):
            (release / path).unlink()
    return config


def rendered(output: Path) -> list[dict[str, Any]]:
    """What the workspace beside a release says of all its faces (RENDERED rows)."""
    return [
        row
        for path in sorted((output.parent / "workspace").glob("render/*/faces/*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]


def contents(folder: Path) -> dict[str, str]:
    """Path -> sha256 of every file below a folder, unfinished ones and hidden ones too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def lasting(folder: Path) -> dict[str, str]:
    """Contents of a workspace or release that any two runs share: not places, nor what a run met or left."""
    return {
        path: digest
        for path, digest in contents(folder).items()
        if not path.startswith(("failures/", "job.yaml")) and not Path(path).name.startswith(OURS)
    }


def every_byte(folder: Path) -> bytes:
    """Everything in a release, with what is inside its tables and compressed files laid open beside it."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found += [str(path.relative_to(folder)).encode(), path.read_bytes()]
            if path.suffix == ".parquet":
                found.append(json.dumps(pq.read_table(path).to_pylist(), default=repr, ensure_ascii=False).encode())
    return b"\n".join(found)


def manifest(output: Path) -> list[dict[str, Any]]:
    """The rows of every shard, in order."""
    paths = sorted((output / "manifest").glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def by_key(output: Path) -> dict[str, dict[str, Any]]:
    """The manifest by key; fails if a key has two rows."""
    rows = manifest(output)
    found = {row["key"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def reasons(workspace: Path) -> dict[str, str]:
    """Key of the input -> the workspace's sentence why it was quarantined."""
    paths = sorted(workspace.glob("render/*/reasons/*.parquet"))
    return {row["key"]: row["sentence"] for path in paths for row in pq.read_table(path).to_pylist()}


images = photos.content_of


def released(output: Path) -> dict[str, bytes]:
    """Key -> image bytes of all tars of a release."""
    members = [member for path in sorted((output / "data").glob("*.tar")) for member in images(path).items()]
    return {name.partition(".")[0]: content for name, content in members if not name.endswith(".json")}


@dataclass
class Started:
    """A job in a process and session of its own; `lines` is its progress so far."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def lines(self) -> list[str]:
        return (self.folder / "stdout").read_text().splitlines()

    @property
    def complaints(self) -> str:
        return (self.folder / "stderr").read_text()[-3000:]

    def finish(self, timeout: float = 300) -> int:
        """The exit code, once it is over."""
        return self.process.wait(timeout)

    def wait_for(self, what: Callable[[], Any], seconds: float = 120) -> Any:
        """The first true answer of `what`; None if the job ended or time ran out before."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            if answer := what():
                return answer
            time.sleep(0.02)
        return None


@contextmanager
def started(config: JobConfig, folder: Path, driver: str = _DRIVER, **environment: str) -> Iterator[Started]:
    """Run a job beside the test; whatever is left of it afterwards is ended, by pid."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.yaml").write_text(config.to_yaml())
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        command = [sys.executable, "-c", driver, str(folder / "job.yaml")]
        environment = dict(os.environ) | {"RAY_USAGE_STATS_ENABLED": "0"} | environment
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=err, start_new_session=True)
    try:
        yield Started(process, folder)
    finally:
        kill_session(process.pid)
        process.wait()


def in_session(session: int) -> list[tuple[int, str]]:
    """(pid, command line) of every process that belongs to a session that we started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z" and int(fields[3]) == session:
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found.append((int(folder.name), command))
    return found


def kill_session(session: int) -> None:
    """End everything in a session that we started, by pid, and wait until it is gone."""
    for _ in range(100):
        left = in_session(session)
        if not left:
            return
        for pid, _ in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    raise AssertionError(f"still running: {in_session(session)}")


def tables(folder: Path) -> Iterator[tuple[str, pq.ParquetFile]]:
    """Every Parquet file below a folder."""
    for path in sorted(folder.rglob("*.parquet")):
        yield str(path.relative_to(folder)), pq.ParquetFile(io.BytesIO(path.read_bytes()))
