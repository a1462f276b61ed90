"""Jobs on a Ray of their own, with the secret from three places, and a search for it and for the names of photos.

Searched are Ray's logs, every command line while the jobs run, what they print, the pickles that go to actors, the
workspace and the releases; for the job's secret and for the AWS key, plain, in hex and in base64. A name of a photo may
be in the workspace and in what goes to actors.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import photos
from tests.support.runs import contents, every_byte, in_session, job, reasons, started
from tests.support.s3server import S3Server

SECRET, LATER = "c1f3 a secret that no file may hold", "9e0d the secret after a rotation"
VARIABLE = "ANONLIB_TEST_SECRET"
SOURCES = ("env", "manager", "file")
_DRIVER = """
import json, os, sys, time
from pathlib import Path
import ray
from ray import cloudpickle
from anonlib.errors import AnonlibError
from anonlib.config import JobConfig, load_config
from anonlib.job import Job
from anonlib.execution.ray import RayRunner
from anonlib.execution.telemetry import open_progress

here = Path(sys.argv[1]).parent

class Keeping(RayRunner):
    def run(self, make, units):
        number = len(list(here.glob("*.pickle")))
        (here / f"{number}.pickle").write_bytes(cloudpickle.dumps((self.config, make, list(units))))
        yield from super().run(make, units)

ray.init(address="local", num_cpus=2, object_store_memory=120 << 20, include_dashboard=False, log_to_driver=False,
         _node_ip_address="127.0.0.1")
base, jobs = load_config(Path(sys.argv[1])).model_dump(), {}
with open_progress() as progress:
    for name, secret in json.loads(os.environ["SOURCES"]).items():
        output = base["output"] | {"uri": f"{base['output']['uri']}-{name}"}
        config = JobConfig.model_validate(base | {"secret": secret, "output": output})
        jobs[name] = Job(config, runner=Keeping(config.ray), report=progress, ended=progress.ended)
        jobs[name]._begin()  # It reads the secret: what changes afterwards is for the next run.
    print("opened", flush=True)
    while not (here / "go").exists():
        time.sleep(0.05)
    for name, job in jobs.items():
        try:
            print(name, job.run().code, flush=True)
        except AnonlibError as error:
            print(name, error, flush=True)
"""


def spellings(secret: str) -> dict[str, bytes]:
    """How a secret may stand somewhere: as it is, in hex, and in base64 at each of its three alignments."""
    raw = secret.encode()
    found = {"plain": raw, "hex": raw.hex().encode(), "HEX": raw.hex().upper().encode()}
    for shift in range(3):
        # What stands before and after bleeds into the first and the last sign.
        inner = b64encode(b"\0" * shift + raw)[4 if shift else 0 : -4]
        found[f"base64 at {shift}"] = inner
        found[f"base64url at {shift}"] = inner.translate(bytes.maketrans(b"+/", b"-_"))
    return found


def shown(content: bytes, *confidential: str) -> list[str]:
    return [name for one in confidential for name, spelled in spellings(one).items() if spelled in content]


@dataclass
class Searched:
    """What three jobs left: `seen` is the command lines, `printed` a line a job."""

    root: Path
    logs: Path
    confidential: tuple[str, ...]
    seen: set[str] = field(default_factory=set)
    printed: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def searched(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    """Jobs that were opened with one secret from three places, of which two have another by the time they run, when a
    photo is gone."""
    root = tmp_path_factory.mktemp("searched")
    shots = {"at_sea": photos.nobody(), "at_home": photos.astronaut()[:300, 80:380]}
    photos.fill(root / "in", {f"Ada_Quill/{name}.jpg": photos.jpeg(pixels) for name, pixels in shots.items()})
    rotated = s3.client("secretsmanager").create_secret(Name="anonlib/searched", SecretString=SECRET)["ARN"]
    (root / "secret").write_text(SECRET)
    reader = {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": rotated}
    user = s3.user({"Version": "2012-10-17", "Statement": [reader]})
    config = job(root / "in", root, method={"name": "solid"}, rekey=True, ray={"actors": 1}, secret={"env": VARIABLE})
    sources = {"env": {"env": VARIABLE}, "manager": {"manager": rotated}, "file": {"file": str(root / "secret")}}
    # A socket's path is short.
    logs = Path(tempfile.mkdtemp(prefix="anl-"))
    found = Searched(root, logs, (SECRET, LATER, user.secret))
    environment = {VARIABLE: SECRET, "SOURCES": json.dumps(sources), "RAY_TMPDIR": str(logs)}
    try:
        with s3.acting_as(user), started(config, root / "process", _DRIVER, **environment) as run:
            assert run.wait_for(lambda: "opened" in run.lines), run.complaints
            s3.client("secretsmanager").put_secret_value(SecretId=rotated, SecretString=LATER)
            (root / "secret").write_text(LATER)
            (root / "in" / "Ada_Quill" / "at_sea.jpg").unlink()
            (root / "process" / "go").touch()
            while run.process.poll() is None:
                found.seen |= {command for _, command in in_session(run.process.pid)}
                time.sleep(0.2)
            found.printed = run.lines[1:]
            assert len(found.printed) == len(sources), run.complaints
        yield found
    finally:
        shutil.rmtree(logs)


def test_the_secret_is_the_same_from_everywhere_and_a_rotation_waits(searched: Searched) -> None:
    assert searched.printed[:2] == ["env 3", "manager 3"]
    one, other = (contents(searched.root / f"release-{name}") for name in ("env", "manager"))
    assert one == other and "certificate.json" in one


def test_a_worker_with_another_secret_stops_the_job_and_writes_nothing(searched: Searched) -> None:
    assert "than the one that this job was started with" in searched.printed[2]
    assert set(contents(searched.root / "release-file")) == {"run.json"}


def logs_of(searched: Searched) -> list[Path]:
    return [path for path in searched.logs.rglob("*") if path.is_file() and not path.is_symlink()]


def test_a_photo_that_vanishes_is_named_in_the_workspace_and_in_no_log(searched: Searched) -> None:
    for path in (*logs_of(searched), *(searched.root / "process" / name for name in ("stdout", "stderr"))):
        content = path.read_bytes()
        assert not any(name in content for name in (b"Ada_Quill", b"at_sea", b"at_home")), path
    assert "Ada_Quill/at_sea.jpg" in reasons(searched.root / "workspace")


def test_nothing_shows_it(searched: Searched) -> None:
    """Neither a log of Ray, nor a command line, what is printed or pickled, a workspace or a release."""
    logs = logs_of(searched)
    assert {"raylet.out", "gcs_server.out"} <= {path.name for path in logs}
    assert any(path.name.startswith("worker-") for path in logs)
    assert any("raylet" in command for command in searched.seen)
    assert any(command.startswith("ray::") for command in searched.seen)
    # Three jobs in one workspace: the first scans and renders in one pass, the others render.
    assert len(list((searched.root / "process").glob("*.pickle"))) == 3
    told = {str(path): path.read_bytes() for path in (*logs, *(searched.root / "process").iterdir())}
    told["command lines"] = "\n".join(searched.seen).encode()
    for place in ("workspace", *(f"release-{name}" for name in SOURCES)):
        told[place] = every_byte(searched.root / place)
        assert len(told[place]) > 500
    for place, content in told.items():
        assert not shown(content, *searched.confidential), place
    for planted in (b"x" + SECRET.encode() + b"z", SECRET.encode().hex().encode(), b64encode(b"xy" + SECRET.encode())):
        assert shown(b"{ " + planted + b" }", SECRET), "the search finds nothing"
