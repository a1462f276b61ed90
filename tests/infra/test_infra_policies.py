"""Every role may do what its stage needs and no more: the documents that Terraform reads, on a server that checks."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import pytest

from anonlib.config import JobConfig
from anonlib.errors import AccessDenied
from anonlib.job import Job
from anonlib.storage import StorageOptions, open_storage
from anonlib.verification.release import verify
from anonlib.workspace.layout import open_stores
from anonlib.workspace.purge import purge
from anonlib.workspace.release import publish_audit
from anonlib.workspace.secrets import open_keyring, signing_secret
from tests.infra.policies import (
    ASIDE,
    CALLS,
    CERTIFIED,
    DECISION,
    FACES,
    FAILURE,
    KEYS,
    LOOKS,
    MONTH,
    POLICIES,
    PROBE,
    REPORTS,
    ROLES,
    SHARD,
    WHY,
    Cloud,
    named,
)
from tests.support.runs import Run, contents, job, salted
from tests.support.s3server import S3Server, download, policy

WRITE = ("put", "upload")
WORKING = {f"list {place} november/" for place in ("input", "workspace")} | {
    *("secret read", "seal workspace_key", "open workspace_key"),
    *named(("get",), "input", KEYS["input"]),
    *named(("get",), "workspace", KEYS["workspace"]),
}
VERIFY = {"list release november/", *named(("get",), "release", KEYS["release"])}
PURGED, NOTES = "november/purged.json", ("november/inventory.json", "november/job.yaml", "november/purged.json")
ALLOWED = {
    "scan": {*WORKING, *named(WRITE, "workspace", KEYS["workspace"]), *named(("delete",), "workspace", (PROBE,))},
    "render": {
        *WORKING | VERIFY | {"signing read"},
        *named(WRITE, "workspace", (WHY, FAILURE)),
        *named(WRITE, "release", KEYS["release"]),
        *named(("delete",), "release", (*SHARD, *REPORTS, CERTIFIED, ASIDE, PROBE)),
    },
    "review": {*WORKING | VERIFY, *named(WRITE, "workspace", (DECISION,))},
    "audit": {
        *WORKING | VERIFY | {"signing read"},
        *named(WRITE, "workspace", (LOOKS,)),
        *named((*WRITE, "delete"), "release", REPORTS),
    },
    "verify": VERIFY,
    "purge": {
        *VERIFY | {"list workspace november/", "uploads workspace", "seal workspace_key", "open workspace_key"},
        *named(("delete",), "workspace", KEYS["workspace"]),
        *named(("get",), "workspace", NOTES),
        *named(WRITE, "workspace", (PURGED,)),
    },
}


@pytest.fixture(scope="module")
def cloud(s3: S3Server) -> Cloud:
    return Cloud.made(s3)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_exactly_what_its_stage_needs(cloud: Cloud, role: str) -> None:
    assert cloud.outcomes(cloud.user(role)) == ALLOWED[role]


def on_cloud(cloud: Cloud, root: Path, **changes: Any) -> JobConfig:
    names = cloud.names
    return job(
        f"s3://{names['input_bucket']}/{MONTH}",
        root,
        output={"uri": f"s3://{names['release_bucket']}/{MONTH}", "release": "tests"},
        workspace={"uri": f"s3://{names['workspace_bucket']}/{MONTH}"},
        storage={"endpoint_url": cloud.server.endpoint, "region": "us-east-1"},
        secret={"manager": names["secret"]},
        **changes,
    )


def test_a_whole_release_passes_from_role_to_role(s3: S3Server, one_shard: Run, tmp_path: Path) -> None:
    cloud = Cloud.made(s3)
    config = on_cloud(cloud, tmp_path)
    with s3.acting_as():
        source = open_storage(config.input.uri, s3.options)
        for path in sorted(one_shard.input.iterdir()):
            source.publish(path.name, path)
        salted(config, s3.options)
    with s3.acting_as(cloud.user("scan")):
        assert open_storage(config.workspace.uri, s3.options).probe().details == ()
        job_of_scan = Job(config)
        job_of_scan.scan()
        job_of_scan.make_plan()
        with pytest.raises(AccessDenied):
            job_of_scan.render()
    with s3.acting_as(cloud.user("render")):
        assert open_storage(config.output.uri, s3.options).probe().details == ()
        assert Job(config).render() == one_shard.summary
        release = download(open_storage(config.output.uri, s3.options), tmp_path / "release")
    assert contents(release) == contents(one_shard.output)
    options = StorageOptions(config.storage.endpoint_url, config.storage.region)
    with s3.acting_as(cloud.user("audit")):
        release = open_storage(config.output.uri, options)
        for _ in range(2):
            stores = open_stores(config)
            signing = signing_secret(config, stores, open_keyring(config, stores))
            publish_audit(release, signing, {"report.json": b"{}\n"}, [])
    with s3.acting_as(cloud.user("verify")):
        assert verify(open_storage(config.output.uri, options)).audit is not None
        with pytest.raises(AccessDenied):
            open_storage(config.workspace.uri, options).read("inventory.json")
    with s3.acting_as(cloud.user("purge")):
        record = purge(config)
    assert record.files > 0 and record.remains is None
    with s3.acting_as():
        left = [entry.path for entry in open_storage(config.workspace.uri, options).list()]
    assert left == ["purged.json"]


WORKSPACE = [name for name in CALLS if " workspace" in name and "workspace_key" not in name]
SETTINGS = {f"{verb} workspace" for verb in ("versioning", "lifecycle", "replication", "drop")}
READ = {f"{verb} workspace {FACES}" for verb in ("get", "get version")}
LISTED = {"list workspace", "versions workspace", "uploads workspace"}


CLEAR = {"EncryptedConnectionsOnly"}
WHO = {"NobodyElseTouchesPersonalData", "NobodyElseListsPersonalData", "AdminsAloneChangeTheBucket"}
Guarded = dict[str, Callable[..., set[str]]]
"""Who asks -> which calls on a workspace's bucket are not refused to it, of all or of those that are tried.

`role` has a role's document, `admin` and `outsider` all rights on the bucket that an account can give.
"""


@pytest.fixture
def guarded(s3: S3Server, request: pytest.FixtureRequest) -> Guarded:
    """The statements of the file without those that the test names: the test's server is reached in clear."""
    cloud = Cloud.made(s3)
    bucket = cloud.names["workspace_bucket"]
    every = policy(bucket, "s3:*")
    role = cloud.user("scan", name=f"scan-{bucket}")
    admin, outsider = s3.user(every, f"admin-{bucket}"), s3.user(every)
    arns = {who: f"arn:aws:iam::000000000000:user/{who}-{bucket}" for who in ("scan", "admin")}
    document = json.loads(
        Template((POLICIES / "workspace-bucket.json").read_text()).substitute(
            bucket=bucket,
            principals=json.dumps([arns["scan"]]),
            principals_and_admins=json.dumps([*arns.values()]),
            admins=json.dumps([arns["admin"]]),
        )
    )
    document["Statement"] = [one for one in document["Statement"] if one["Sid"] not in request.param]
    s3.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(document))
    users = {"role": role, "admin": admin, "outsider": outsider}
    return {who: partial(cloud.outcomes, user, tried=WORKSPACE) for who, user in users.items()}


@pytest.mark.parametrize("guarded", [CLEAR], indirect=True)
def test_rights_of_ones_own_do_not_open_the_workspace(guarded: Guarded) -> None:
    assert guarded["outsider"]() == set()
    assert guarded["role"]() == ALLOWED["scan"] & set(WORKSPACE)


@pytest.mark.parametrize("guarded", [CLEAR], indirect=True)
def test_an_admin_changes_the_workspaces_bucket_and_reads_nothing_in_it(guarded: Guarded) -> None:
    assert guarded["admin"](tried=SETTINGS | LISTED | READ) == SETTINGS | LISTED


@pytest.mark.parametrize("guarded", [WHO], indirect=True)
def test_nobody_reaches_a_bucket_in_clear(guarded: Guarded) -> None:
    assert not any(ask() for ask in guarded.values())


def test_the_release_is_reached_encrypted_alone_too() -> None:
    names = {"bucket": "b"} | dict.fromkeys(("principals", "principals_and_admins", "admins"), "[]")
    workspace, release = (
        json.loads(Template((POLICIES / f"{name}-bucket.json").read_text()).substitute(names))
        for name in ("workspace", "release")
    )
    assert release["Statement"] == workspace["Statement"][:1]
