"""The policies that Terraform gives the roles, filled in with a test server's names, and what a user may then do."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

from botocore.exceptions import ClientError

from anonlib.workspace.schemas import AUDIT_FILES, CERTIFICATE, STATEMENT
from tests.support.runs import SECRET
from tests.support.s3server import Credentials, S3Server

POLICIES = Path(__file__).parents[2] / "infra" / "terraform" / "policies"
ROLES = ("scan", "render", "review", "audit", "verify", "purge")
PLACES, SECRETS = ("input", "workspace", "release"), ("secret", "signing")
MONTH = "november"
"""The release that the roles are for; there is another in the same buckets, october."""
REFUSED = {"AccessDenied", "AccessDeniedException", "403"}
WITH_RIGHTS = {"BucketNotEmpty", "InvalidRequest"}
"""Why a bucket is not dropped, and not copied while it has no versions; who has not the rights is told that instead."""


@dataclass(frozen=True)
class Cloud:
    """Buckets, key and secret of a job, as the root user made them."""

    server: S3Server
    names: dict[str, str]

    @classmethod
    def made(cls, server: S3Server) -> Cloud:
        names = {f"{one}_bucket": server.bucket() for one in PLACES}
        names |= {f"{one}_prefix": MONTH for one in PLACES}
        names["other_bucket"] = server.bucket()
        kms = server.client("kms")
        for key in ("workspace_key", "secret_key"):
            names[key] = kms.create_key()["KeyMetadata"]["Arn"]
            sealed = kms.encrypt(KeyId=names[key], Plaintext=b"1")["CiphertextBlob"]
            names[f"sealed_by_{key}"] = b64encode(sealed).decode()
        for which in SECRETS:
            secret = server.client("secretsmanager").create_secret(
                Name=f"anonlib/{which}-{names['input_bucket']}", SecretString=SECRET, KmsKeyId=names["secret_key"]
            )
            names[which] = secret["ARN"]
        return cls(server, names)

    def user(self, role: str, name: str | None = None) -> Credentials:
        """A user who may do what the role may."""
        text = (POLICIES / f"{role}.json").read_text()
        return self.server.user(json.loads(Template(text).substitute(self.names)), name)

    def outcomes(self, who: Credentials, tried: Collection[str] | None = None) -> set[str]:
        """The names of all CALLS, or of those that are `tried`, that this user is not refused."""
        for bucket, keys in EVERY.items():
            for key in keys:
                self.server.client().put_object(Bucket=self.names[f"{bucket}_bucket"], Key=key, Body=b"1")
        clients = {name: self.server.client_of(who, name) for name in SERVICES}
        asked = CALLS if tried is None else {name: CALLS[name] for name in tried}
        return {name for name, call in asked.items() if self._may(name, call, clients)}

    def _may(self, name: str, call: Call, clients: dict[str, Any]) -> bool:
        try:
            call(clients, self.names)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in WITH_RIGHTS:
                return True
            if code not in REFUSED:
                raise AssertionError(f"{name} was neither done nor refused: {error}") from error
            return False
        return True


Call = Callable[[dict[str, Any], dict[str, str]], Any]
SERVICES = ("s3", "kms", "secretsmanager", "iam")
SHARD = ("november/data/00000.tar", "november/manifest/00000.parquet", "november/commits/00000.json")
NOTES = ("november/inventory.json", "november/job.yaml", "november/purged.json")
FACES, LOOKS = "november/scan/1/faces/00000.parquet", "november/audit/1/00000.npz"
WHY, FAILURE = "november/render/1/reasons/00000.parquet", "november/failures/render/00000.txt"
DECISION, ASIDE = "november/review/1/decisions/00000001.json", "november/withdrawn/00000.json"
CERTIFIED = f"november/{CERTIFICATE}"
REPORTS = tuple(f"november/{name}" for name in (STATEMENT, *AUDIT_FILES))
PROBE = "november/.anonlib-probe-1"
EXPIRES_NEVER = {"Rules": [{"ID": "a", "Status": "Disabled", "Filter": {}, "Expiration": {"Days": 9999}}]}
ELSEWHERE = {
    "Role": "arn:aws:iam::000000000000:role/copier",
    "Rules": [{"Status": "Enabled", "Prefix": "", "Destination": {"Bucket": "arn:aws:s3:::elsewhere"}}],
}
KEYS = {
    "input": ("november/00000.tar",),
    "workspace": (FACES, LOOKS, DECISION, WHY, FAILURE, PROBE, *NOTES),
    "release": (*SHARD, "november/run.json", PROBE, ASIDE, CERTIFIED, *REPORTS),
    "other": ("november/00000.tar",),
}
EVERY = {bucket: (*keys, keys[0].replace(MONTH, "october")) for bucket, keys in KEYS.items()}


def _calls() -> dict[str, Call]:
    """Everything that is tried in every role's name: each verb on each kind of object, its deletion last."""
    calls: dict[str, Call] = {}

    def s3(verb: str, method: str, bucket: str, **asked: Any) -> None:
        what = asked.get("Prefix") or asked.get("Key") or ""
        calls[f"{verb} {bucket} {what}".strip()] = lambda clients, names: getattr(clients["s3"], method)(
            Bucket=names[f"{bucket}_bucket"], **asked
        )

    for bucket, keys in EVERY.items():
        for prefix in ("", "november/", "october/"):
            s3("list", "list_objects_v2", bucket, Prefix=prefix)
        s3("versions", "list_object_versions", bucket)
        s3("uploads", "list_multipart_uploads", bucket)
        s3("policy", "put_bucket_policy", bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": []}))
        s3("versioning", "put_bucket_versioning", bucket, VersioningConfiguration={"Status": "Suspended"})
        s3("lifecycle", "put_bucket_lifecycle_configuration", bucket, LifecycleConfiguration=EXPIRES_NEVER)
        s3("replication", "put_bucket_replication", bucket, ReplicationConfiguration=ELSEWHERE)
        s3("drop", "delete_bucket", bucket)
        for key in keys:
            s3("get", "get_object", bucket, Key=key)
            s3("put", "put_object", bucket, Key=key, Body=b"2")
            s3("upload", "create_multipart_upload", bucket, Key=key)
            s3("acl", "put_object_acl", bucket, Key=key, ACL="public-read")
            s3("get version", "get_object", bucket, Key=key, VersionId="null")
            s3("delete version", "delete_object", bucket, Key=key, VersionId="null")
            s3("delete", "delete_object", bucket, Key=key)

    def other(call: str, service: str, method: str, id: str, name: str, **asked: Any) -> None:
        """`asked` may name a function of the names."""
        calls[call] = lambda clients, names: getattr(clients[service], method)(
            **{id: names[name]}, **{key: value(names) if callable(value) else value for key, value in asked.items()}
        )

    for which in SECRETS:
        other(f"{which} read", "secretsmanager", "get_secret_value", "SecretId", which)
        other(f"{which} write", "secretsmanager", "put_secret_value", "SecretId", which, SecretString=SECRET)
    for key in ("workspace_key", "secret_key"):
        sealed = partial(_sealed, key)
        other(f"seal {key}", "kms", "generate_data_key", "KeyId", key, KeySpec="AES_256")
        other(f"open {key}", "kms", "decrypt", "KeyId", key, CiphertextBlob=sealed)
        other(f"drop {key}", "kms", "schedule_key_deletion", "KeyId", key)
    calls["users"] = lambda clients, names: clients["iam"].list_users()
    return calls


def _sealed(key: str, names: dict[str, str]) -> bytes:
    return b64decode(names[f"sealed_by_{key}"])


CALLS = _calls()


def named(verbs: tuple[str, ...], bucket: str, keys: tuple[str, ...]) -> set[str]:
    """The names of calls: each verb on each key."""
    return {f"{verb} {bucket} {key}" for verb in verbs for key in keys}
