"""The policies that Terraform gives the roles, filled in with a test server's names, and what a user may then do."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

from botocore.exceptions import ClientError
from runs import SECRET
from s3server import Credentials, S3Server

from anonlib.pipeline.certify import CERTIFICATE
from anonlib.pipeline.places import AUDIT_FILES, STATEMENT

POLICIES = Path(__file__).parents[2] / "infra" / "terraform" / "policies"
ROLES = ("scan", "render", "review", "audit", "verify", "purge")
SECRET_NAME = "anonlib/job"
REFUSED = {"AccessDenied", "AccessDeniedException", "403"}


@dataclass(frozen=True)
class Cloud:
    """Buckets, key and secret of a job, as the root user made them."""

    server: S3Server
    names: dict[str, str]

    @classmethod
    def made(cls, server: S3Server) -> Cloud:
        names = {f"{one}_bucket": server.bucket() for one in ("input", "workspace", "release")}
        names["other_bucket"] = server.bucket()
        kms = server.client("kms")
        for key in ("workspace_key", "secret_key"):
            names[key] = kms.create_key()["KeyMetadata"]["Arn"]
            sealed = kms.encrypt(KeyId=names[key], Plaintext=b"1")["CiphertextBlob"]
            names[f"sealed_by_{key}"] = b64encode(sealed).decode()
        secret = server.client("secretsmanager").create_secret(
            Name=f"{SECRET_NAME}-{names['input_bucket']}", SecretString=SECRET, KmsKeyId=names["secret_key"]
        )
        return cls(server, names | {"secret": secret["ARN"]})

    def user(self, role: str, text: str | None = None, name: str | None = None) -> Credentials:
        """A user who may do what the role may; `text` stands in for the policy's file."""
        text = text if text is not None else (POLICIES / f"{role}.json").read_text()
        return self.server.user(json.loads(Template(text).substitute(self.names)), name)

    def outcomes(self, who: Credentials) -> set[str]:
        """The names of all CALLS that this user is not refused."""
        for bucket, keys in KEYS.items():
            for key in keys:
                self.server.client().put_object(Bucket=self.names[f"{bucket}_bucket"], Key=key, Body=b"1")
        clients = {name: self.server.client_of(who, name) for name in SERVICES}
        return {name for name, call in CALLS.items() if self._may(name, call, clients)}

    def _may(self, name: str, call: Call, clients: dict[str, Any]) -> bool:
        try:
            call(clients, self.names)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code not in REFUSED:
                raise AssertionError(f"{name} was neither done nor refused: {error}") from error
            return False
        return True


Call = Callable[[dict[str, Any], dict[str, str]], Any]
SERVICES = ("s3", "kms", "secretsmanager", "iam")
SHARD = ("november/data/00000.tar", "november/manifest/00000.parquet", "november/commits/00000.json")
NOTES = ("november/inventory.json", "november/purged.json")
FACES, LOOKS = "november/scan/1/faces/00000.parquet", "november/audit/1/00000.npz"
WHY, FAILURE = "november/render/1/reasons/00000.parquet", "november/failures/render/00000.txt"
DECISION, ASIDE = "november/review/1/decisions/00000001.json", "november/withdrawn/00000.json"
CERTIFIED = f"november/{CERTIFICATE}"
REPORTS = tuple(f"november/{name}" for name in (STATEMENT, *AUDIT_FILES))
PROBE = "november/.anonlib-probe-1"
KEYS = {
    "input": ("november/00000.tar",),
    "workspace": (FACES, LOOKS, DECISION, WHY, FAILURE, PROBE, *NOTES),
    "release": (*SHARD, "november/run.json", PROBE, ASIDE, CERTIFIED, *REPORTS),
    "other": ("november/00000.tar",),
}


def _calls() -> dict[str, Call]:
    """Everything that is tried in every role's name: each verb on each kind of object, its deletion last."""
    calls: dict[str, Call] = {}

    def s3(verb: str, method: str, bucket: str, **asked: Any) -> None:
        calls[f"{verb} {bucket} {asked.get('Key', '')}".strip()] = lambda clients, names: getattr(
            clients["s3"], method
        )(Bucket=names[f"{bucket}_bucket"], **asked)

    for bucket, keys in KEYS.items():
        s3("list", "list_objects_v2", bucket)
        s3("versions", "list_object_versions", bucket)
        s3("uploads", "list_multipart_uploads", bucket)
        s3("policy", "put_bucket_policy", bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": []}))
        s3("versioning", "put_bucket_versioning", bucket, VersioningConfiguration={"Status": "Suspended"})
        s3("drop", "delete_bucket", bucket)
        for key in keys:
            s3("get", "get_object", bucket, Key=key)
            s3("put", "put_object", bucket, Key=key, Body=b"2")
            s3("upload", "create_multipart_upload", bucket, Key=key)
            s3("acl", "put_object_acl", bucket, Key=key, ACL="public-read")
            s3("delete", "delete_object", bucket, Key=key)
    calls["secret read"] = lambda clients, names: clients["secretsmanager"].get_secret_value(SecretId=names["secret"])
    calls["secret write"] = lambda clients, names: clients["secretsmanager"].put_secret_value(
        SecretId=names["secret"], SecretString="y" * 40
    )
    for key in ("workspace_key", "secret_key"):
        calls[f"seal {key}"] = partial(_seal, key)
        calls[f"open {key}"] = partial(_open, key)
        calls[f"drop {key}"] = partial(_drop, key)
    calls["users"] = lambda clients, names: clients["iam"].list_users()
    return calls


def _seal(key: str, clients: dict[str, Any], names: dict[str, str]) -> None:
    clients["kms"].generate_data_key(KeyId=names[key], KeySpec="AES_256")


def _open(key: str, clients: dict[str, Any], names: dict[str, str]) -> None:
    clients["kms"].decrypt(KeyId=names[key], CiphertextBlob=b64decode(names[f"sealed_by_{key}"]))


def _drop(key: str, clients: dict[str, Any], names: dict[str, str]) -> None:
    clients["kms"].schedule_key_deletion(KeyId=names[key])


CALLS = _calls()


def named(verbs: tuple[str, ...], bucket: str, keys: tuple[str, ...]) -> set[str]:
    """The names of calls: each verb on each key."""
    return {f"{verb} {bucket} {key}" for verb in verbs for key in keys}
