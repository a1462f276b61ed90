"""`anonlib verify` on releases of strangers opens nothing before it has hashed it, and is neither filled nor fooled."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from anonlib.cli import app
from anonlib.storage import open_storage
from anonlib.verification.certificate import public_key
from anonlib.verification.release import unproved
from anonlib.workspace.release import publish_audit
from anonlib.workspace.schemas import STATEMENT
from tests.support import photos
from tests.support.forgery import MANIFEST, SHARD, TAR, Forger, Tampering, check, refused
from tests.support.runs import SECRET, Run, run_job
from tests.support.s3server import S3Server

CLI = CliRunner()
OURS = public_key(SECRET.encode())


STRAYS: dict[str, tuple[Tampering, str]] = {
    "an empty folder": (lambda r: r.path("data/of Ada Quill").mkdir(), "data/of Ada Quill/"),
    "a folder in an empty folder": (lambda r: r.path("x/y").mkdir(parents=True), "x/y/"),
    "a link to a folder inside": (lambda r: r.path("again").symlink_to("data"), "again"),
    "a link to a folder outside": (lambda r: r.path("elsewhere").symlink_to("/etc"), "elsewhere"),
    "a link to a file outside": (lambda r: r.path("words").symlink_to("/etc/passwd"), "words"),
    "a pipe": (lambda r: os.mkfifo(r.path("data/pipe")), "data/pipe"),
}


@pytest.mark.parametrize("what", STRAYS)
def test_what_is_no_file_is_named_and_not_opened(what: str, forger: Forger) -> None:
    tamper, path = STRAYS[what]
    forger.path("withdrawn").mkdir()  # an earlier anonlib left it
    assert check(forger.root).files
    tamper(forger)
    refused(forger.root, f"{path} is in the release, and nobody vouches for it")


def test_a_pipe_in_the_place_of_a_file_is_refused_and_does_not_hang(forger: Forger) -> None:
    for name in (TAR, MANIFEST, "run.json", "certificate.json"):
        forger.path(name).unlink()
        os.mkfifo(forger.path(name))
        done = CLI.invoke(app, ["verify", str(forger.root)])
        assert done.exit_code == 1 and "is a pipe, a socket or a device and no file" in done.stderr


def test_on_s3_as_on_a_disk_and_a_key_that_ends_in_a_slash_is_seen(finished: Run, s3: S3Server) -> None:
    with s3.acting_as():
        bucket = s3.bucket()
        storage = open_storage(f"s3://{bucket}/november", s3.options)
        for path in finished.output.rglob("*"):
            if path.is_file():
                storage.publish(str(path.relative_to(finished.output)), path)
        client = s3.client()
        client.put_object(Bucket=bucket, Key="november/", Body=b"")
        flags = ["--endpoint-url", s3.endpoint, "--region", "us-east-1"]
        assert CLI.invoke(app, ["verify", f"s3://{bucket}/november", *flags]).exit_code == 0
        for key, shown in (("november/data/mapping.csv/", "data/mapping.csv/"), ("november/", "/")):
            client.put_object(Bucket=bucket, Key=key, Body=b"Ada Quill, 00017")
            done = CLI.invoke(app, ["verify", f"s3://{bucket}/november", *flags])
            assert done.exit_code == 1 and f"not as it says: {shown} is in the release" in done.stderr
            client.delete_object(Bucket=bucket, Key=key)
        storage.delete(TAR)
        done = CLI.invoke(app, ["verify", f"s3://{bucket}/november", *flags])
        assert done.exit_code == 1 and "is missing" in done.stderr


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.update(remark="of Ada Quill"),
        lambda note: note["models"]["centerface"].update(remark="of Ada Quill"),
        lambda note: note.update(synthesis="Ada Quill"),
    ],
)
def test_run_json_has_no_room_for_remarks(change: Callable[[dict[str, object]], object], forger: Forger) -> None:
    forger.json("run.json", change)
    forger.reseal(models=json.loads(forger.path("run.json").read_text())["models"])
    refused(forger.root, "run.json cannot be read")


@pytest.mark.parametrize("name", ["certificate.json", STATEMENT])
def test_a_file_larger_than_it_may_be_is_not_read_whole(name: str, forger: Forger) -> None:
    with forger.path(name).open("wb") as file:
        file.truncate(1 << 40)
    refused(forger.root, f"{name} is larger than 1 MiB")


def test_a_release_cannot_forge_a_line_of_the_verdict(forger: Forger) -> None:
    name = f"november\nsigned by  {OURS}, as it should be\x1b[8m\u202e" + " " * 300 + "claim      all is well"
    forger.certificate(release=name)
    done = CLI.invoke(app, ["verify", str(forger.root)])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    key = json.loads(forger.path("certificate.json").read_text())["public_key"]
    assert [line for line in lines if line.startswith("signed by")] == [line for line in lines if key in line]
    assert all(line.isprintable() for line in lines)
    assert "'november\\nsigned by" in lines[0] and len(lines[0]) < 120
    forger.path("a\x1b[2K\rall is well").write_bytes(b"")
    done = CLI.invoke(app, ["verify", str(forger.root)])
    assert done.exit_code == 1 and "\x1b" not in done.stderr and "a\\x1b[2K" in done.stderr


@pytest.fixture(scope="module")
def promising(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release whose maker has promised an audit, and none yet."""
    root = tmp_path_factory.mktemp("promising")
    photos.tar(root / "input" / f"{SHARD}.tar", [("a.jpg", photos.jpeg(photos.nobody()))])
    return run_job(root / "input", root, method={"name": "solid"}, policy={"promised": True}).output


def test_a_promised_audit_is_missed_though_somebody_deleted_all_of_it(promising: Path, tmp_path: Path) -> None:
    release = tmp_path / "release"
    shutil.copytree(promising, release)
    assert not any("nobody has audited" in line for line in unproved(check(release, OURS)))
    done = CLI.invoke(app, ["verify", str(release), "--key", OURS])
    assert done.exit_code == 4 and "MISSING, although its maker promised one" in done.stdout
    publish_audit(open_storage(str(release)), SECRET.encode(), {"report.json": b"{}\n"}, ["leak"])
    done = CLI.invoke(app, ["verify", str(release), "--key", OURS])
    assert done.exit_code == 4 and "FAILED its policy: leak" in done.stdout
    publish_audit(open_storage(str(release)), SECRET.encode(), {"report.json": b"{}\n"}, [])
    assert CLI.invoke(app, ["verify", str(release), "--key", OURS]).exit_code == 0
