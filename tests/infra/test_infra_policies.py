"""Every role may do what its stage needs and no more: the documents that Terraform reads, on a server that checks."""

from __future__ import annotations

import json
from pathlib import Path
from string import Template
from typing import Any

import pytest
from policies import ASIDE, CERTIFIED, DECISION, KEYS, LOOKS, POLICIES, PROBE, REPORTS, ROLES, SHARD, Cloud, named
from runs import SECRET, Run, job
from s3server import Credentials, S3Server, policy

from anonlib.audit.statement import publish
from anonlib.audit.verify import verify
from anonlib.config import ConfigError, JobConfig
from anonlib.pipeline.job import Job
from anonlib.pipeline.places import open_places
from anonlib.pipeline.purge import purge
from anonlib.pipeline.secret import open_keyring
from anonlib.pipeline.vault import Wanted, from_manager
from anonlib.storage import AccessDenied, StorageOptions, open_storage

WRITE = ("put", "upload")
ALLOWED = {
    "scan": {
        "list input",
        "list workspace",
        "secret read",
        "seal workspace_key",
        "open workspace_key",
        *named(("get",), "input", KEYS["input"]),
        *named(("get", *WRITE), "workspace", KEYS["workspace"]),
        *named(("delete",), "workspace", (PROBE,)),
    },
    "render": {
        "list input",
        "list workspace",
        "list release",
        "secret read",
        *named(("get",), "input", KEYS["input"]),
        *named(("get",), "workspace", KEYS["workspace"]),
        "open workspace_key",
        *named(("get", *WRITE), "release", KEYS["release"]),
        *named(("delete",), "release", (*SHARD, *REPORTS, CERTIFIED, ASIDE, PROBE)),
    },
    "review": {
        "list input",
        "list workspace",
        "list release",
        "secret read",
        "seal workspace_key",
        "open workspace_key",
        *named(("get",), "input", KEYS["input"]),
        *named(("get",), "workspace", KEYS["workspace"]),
        *named(("get",), "release", KEYS["release"]),
        *named(WRITE, "workspace", (DECISION,)),
    },
    "audit": {
        "list input",
        "list workspace",
        "list release",
        "secret read",
        *named(("get",), "input", KEYS["input"]),
        *named(("get",), "workspace", KEYS["workspace"]),
        *named(("get",), "release", KEYS["release"]),
        "seal workspace_key",
        "open workspace_key",
        *named(WRITE, "workspace", (LOOKS,)),
        *named((*WRITE, "delete"), "release", REPORTS),
    },
    "verify": {"list release", *named(("get",), "release", KEYS["release"])},
    "purge": {
        "list workspace",
        "uploads workspace",
        "list release",
        "seal workspace_key",
        "open workspace_key",
        *named(("get",), "release", KEYS["release"]),
        *named(("delete",), "workspace", KEYS["workspace"]),
        *named(("get",), "workspace", ("november/inventory.json", "november/purged.json")),
        *named(WRITE, "workspace", ("november/purged.json",)),
    },
}
PLANTED = {
    "scan": ('"s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"', '"s3:*"'),
    "render": ('"Action": "s3:GetObject"', '"Action": ["s3:GetObject", "s3:PutObject"]'),
    "review": ("${workspace_bucket}/*/review/*", "${workspace_bucket}/*"),
    "audit": ('"arn:aws:s3:::${release_bucket}/*/audit.json"', '"arn:aws:s3:::${release_bucket}/*"'),
    "verify": ("arn:aws:s3:::${release_bucket}/*", "arn:aws:s3:::*"),
    "purge": ("arn:aws:s3:::${workspace_bucket}/*/purged.json", "arn:aws:s3:::${workspace_bucket}/*"),
}


@pytest.fixture(scope="module")
def cloud(s3: S3Server) -> Cloud:
    return Cloud.made(s3)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_exactly_what_its_stage_needs(cloud: Cloud, role: str) -> None:
    assert cloud.outcomes(cloud.user(role)) == ALLOWED[role]


@pytest.mark.parametrize("role", ROLES)
def test_a_wider_right_is_noticed(cloud: Cloud, role: str) -> None:
    text = (POLICIES / f"{role}.json").read_text()
    assert PLANTED[role][0] in text
    assert cloud.outcomes(cloud.user(role, text.replace(*PLANTED[role]))) > ALLOWED[role]


def test_no_role_may_read_what_another_alone_needs() -> None:
    assert not {name for name in ALLOWED["verify"] if "release" not in name}
    assert not any(
        name.startswith(("put", "delete", "upload")) and "input" in name for name in set().union(*ALLOWED.values())
    )


def on_cloud(cloud: Cloud, root: Path, **changes: Any) -> JobConfig:
    names = cloud.names
    return job(
        f"s3://{names['input_bucket']}/photos",
        root,
        output={"uri": f"s3://{names['release_bucket']}/2026-11"},
        workspace={"uri": f"s3://{names['workspace_bucket']}/2026-11"},
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
    with s3.acting_as(cloud.user("scan")):
        assert open_storage(config.workspace.uri, s3.options).probe().details == ()
        job_of_scan = Job(config)
        job_of_scan.scan()
        job_of_scan.make_plan()
        with pytest.raises(AccessDenied):
            job_of_scan.render()
    with s3.acting_as(cloud.user("render")):
        assert open_storage(config.output.uri, s3.options).probe().details == ()
        assert Job(config).render().code == 0
    options = StorageOptions(config.storage.endpoint_url, config.storage.region)
    with s3.acting_as(cloud.user("audit")):
        release = open_storage(config.output.uri, options)
        for _ in range(2):
            publish(release, open_keyring(config, open_places(config)).signing, {"report.json": b"{}\n"}, [])
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


@pytest.mark.parametrize("role", ROLES)
def test_who_needs_the_secret_reads_it_and_nobody_else(cloud: Cloud, tmp_path: Path, role: str) -> None:
    config = on_cloud(cloud, tmp_path)
    with cloud.server.acting_as(cloud.user(role)):
        if "secret read" in ALLOWED[role]:
            assert from_manager(Wanted(config, "secret", config.secret))[0] == SECRET.encode()
        else:
            with pytest.raises(ConfigError, match="may not do secretsmanager:GetSecretValue on the secret arn:"):
                from_manager(Wanted(config, "secret", config.secret))


@pytest.fixture
def guarded_workspace(s3: S3Server, request: pytest.FixtureRequest) -> tuple[Cloud, Credentials, Credentials]:
    """A bucket under the named statements of workspace-bucket.json, a role of its own, and an outsider with rights."""
    cloud = Cloud.made(s3)
    name = f"scanner-of-{cloud.names['workspace_bucket']}"
    role = cloud.user("scan", name=name)
    text = (POLICIES / "workspace-bucket.json").read_text()
    principals = json.dumps([f"arn:aws:iam::000000000000:user/{name}"])
    bucket = cloud.names["workspace_bucket"]
    document = json.loads(Template(text).substitute(bucket=bucket, principals=principals))
    document["Statement"] = [one for one in document["Statement"] if one["Sid"] in request.param]
    s3.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(document))
    return cloud, role, s3.user(policy("*", "s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"))


@pytest.mark.parametrize("guarded_workspace", [{"NobodyElseTouchesPersonalData"}], indirect=True)
def test_rights_of_ones_own_do_not_open_the_workspace(
    guarded_workspace: tuple[Cloud, Credentials, Credentials],
) -> None:
    cloud, role, outsider = guarded_workspace
    personal = named(("get", "put", "delete"), "workspace", KEYS["workspace"])
    assert personal - named(("delete",), "workspace", KEYS["workspace"]) <= cloud.outcomes(role)
    assert not personal & cloud.outcomes(outsider)


@pytest.mark.parametrize("guarded_workspace", [{"EncryptedConnectionsOnly"}], indirect=True)
def test_nobody_reaches_a_bucket_in_clear(guarded_workspace: tuple[Cloud, Credentials, Credentials]) -> None:
    cloud, role, outsider = guarded_workspace
    for who in (role, outsider):
        assert not {name for name in cloud.outcomes(who) if "workspace" in name and "_key" not in name}


def test_the_release_is_reached_encrypted_alone_too() -> None:
    workspace, release = (json.loads(_filled(f"{name}-bucket.json")) for name in ("workspace", "release"))
    assert release["Statement"] == workspace["Statement"][:1]


def _filled(name: str) -> str:
    return Template((POLICIES / name).read_text()).substitute(bucket="b", principals="[]")
