"""What is wrong with a folder of Terraform, as far as that can be known without Terraform and an account."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from string import Template
from typing import Any

import hcl2

REFERENCE = re.compile(r"(?<![\w.\"/-])((?:data\.)?aws_\w+\.\w+|var\.\w+|local\.\w+)")
TEMPLATE = re.compile(r"templatefile\(\"\$\{path\.module\}/(policies/[\w$.{}-]+)\", (\{.*\})\)", re.DOTALL)
PUBLIC = ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
LISTS = dict.fromkeys(("principals", "principals_and_admins", "admins"), '["arn:aws:iam::1:role/a"]')
PLACES = ("input", "workspace", "release")
GUARDED = (
    "GetObject",
    "GetObjectVersion",
    "PutObject",
    "PutObjectAcl",
    "DeleteObject",
    "DeleteObjectVersion",
    "ListBucket",
    "ListBucketVersions",
    "ListBucketMultipartUploads",
    "PutBucketPolicy",
    "DeleteBucketPolicy",
    "PutBucketVersioning",
    "PutReplicationConfiguration",
    "PutLifecycleConfiguration",
    "DeleteBucket",
)
"""What the workspace's bucket refuses to others than the roles and the admins."""
TAG = "aws:{}Tag/ray-cluster-name"


def problems(folder: Path) -> list[str]:
    """Sentences; none if the folder is sound."""
    try:
        tree = Tree(folder)
    except Exception as error:  # noqa: BLE001 - whatever a parser raises, the file is not HCL
        return [f"not HCL: {str(error).splitlines()[0]}"]
    return [*_references(tree), *_policies(tree), *_buckets(tree), *_secrets(tree), *_network(tree)]


class Tree:
    """All files of a folder as one: `named` maps `aws_kms_key.workspace` or `var.region` to its body."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.text = "\n".join(path.read_text() for path in sorted(folder.glob("*.tf")))
        self.named: dict[str, Any] = {}
        for path in sorted(folder.glob("*.tf")):
            with path.open() as file:
                self._add(hcl2.load(file))

    def _add(self, document: dict[str, Any]) -> None:
        for kind, prefix in (("resource", ""), ("data", "data.")):
            for block in document.get(kind, ()):
                for made, bodies in block.items():
                    for name, body in _blocks(bodies):
                        self.named[f"{prefix}{_bare(made)}.{name}"] = body
        for block in document.get("variable", ()):
            self.named |= {f"var.{name}": body for name, body in _blocks(block)}
        for block in document.get("locals", ()):
            self.named |= {f"local.{name}": body for name, body in _blocks(block)}

    def of(self, kind: str) -> dict[str, Any]:
        """Name -> body of every resource of a kind."""
        return {name.split(".")[1]: body for name, body in self.named.items() if name.startswith(f"{kind}.")}


def _blocks(body: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((_bare(name), one) for name, one in body.items() if not name.startswith("__"))


def _bare(name: str) -> str:
    return name.strip('"')


def _references(tree: Tree) -> Iterator[str]:
    code = re.sub(r"^\s*#.*$", "", tree.text, flags=re.MULTILINE)
    for name in sorted(set(REFERENCE.findall(code))):
        if name not in tree.named:
            yield f"{name} is used and declared nowhere"


def _policies(tree: Tree) -> Iterator[str]:
    used: set[str] = set()
    for name, body in tree.named.items():
        for path, given in TEMPLATE.findall(str(body.get("policy", "")) if isinstance(body, dict) else ""):
            stages = re.findall(r'"(\w+)"', str(tree.named["local.stages"])) if "$" in path else [""]
            for stage in stages:
                file = path.replace("${each.key}", stage)
                used.add(file)
                yield from _policy(tree.folder / file, name, set(re.findall(r"(\w+)\s*[=:] ", given)))
    lying = {f"policies/{path.name}" for path in (tree.folder / "policies").iterdir()}
    yield from (f"{path} is read by nothing" for path in sorted(lying - used))


def _policy(path: Path, reader: str, given: set[str]) -> Iterator[str]:
    if not path.is_file():
        yield f"{reader} reads {path.name}, which does not exist"
        return
    text = path.read_text()
    wanted = set(Template(text).get_identifiers())
    if wanted - given or (given - wanted and path.name.endswith("bucket.json")):
        yield f"{path.name} wants {sorted(wanted)}, {reader} gives {sorted(given)}"
    try:
        document = json.loads(Template(text).safe_substitute({name: f"${{{name}}}" for name in wanted} | LISTS))
    except ValueError as error:
        yield f"{path.name} is not JSON: {error}"
        return
    for statement in document["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        if statement["Effect"] == "Allow" and any(one == "*" or one.endswith(":*") for one in actions):
            yield f"{path.name}, {statement['Sid']}: allows whatever there is"
        if statement["Effect"] == "Allow" and "Principal" not in statement:
            yield from (f"{path.name}, {statement['Sid']}: {one}" for one in _wide(statement, actions))
    if path.name.endswith("bucket.json") and document["Statement"][0]["Sid"] != "EncryptedConnectionsOnly":
        yield f"{path.name} lets connections in clear through"
    if path.name == "workspace-bucket.json":
        yield from _guard(document["Statement"][1:])


def _wide(statement: dict[str, Any], actions: list[str]) -> Iterator[str]:
    """A role reaches one release's folders, and the head machines of its own cluster."""
    given = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
    conditions = statement.get("Condition", {})
    prefixes = conditions.get("StringLike", {}).get("s3:prefix", "*")
    for resource in (one for one in given if one.startswith("arn:aws:s3:")):
        place = next((one for one in PLACES if resource.startswith(f"arn:aws:s3:::${{{one}_bucket}}")), "no")
        prefix, (_, _, path) = f"${{{place}_prefix}}", resource.partition("/")
        if (path and path != prefix and not path.startswith(f"{prefix}/")) or place == "no":
            yield "reaches other releases"
        if not path and not set([prefixes] if isinstance(prefixes, str) else prefixes) <= {prefix, f"{prefix}/*"}:
            yield from ["lists other releases"] * ("s3:ListBucket" in actions)
    equal, machines = conditions.get("StringEquals", {}), any("instance/*" in one or one == "*" for one in given)
    own = {TAG.format("Resource"): "${cluster}"}
    if "ec2:CreateTags" in actions and equal not in ({"ec2:CreateAction": "RunInstances"}, own):
        yield "takes over machines by their tags"
    if "ec2:RunInstances" in actions and machines and equal != {TAG.format("Request"): "${cluster}"}:
        yield "starts machines that nothing marks as its own"
    if {"ec2:TerminateInstances", "ec2:StopInstances", "ec2:StartInstances"} & set(actions) and equal != own:
        yield "ends machines of others"


def _guard(statements: list[dict[str, Any]]) -> Iterator[str]:
    """The workspace's bucket denies all that is GUARDED to others, each by a statement about who is asking."""
    denied = [
        one["Action"] if isinstance(one["Action"], list) else [one["Action"]]
        for one in statements
        if one["Effect"] == "Deny" and one["Principal"] == "*" and set(one["Condition"]) == {"ArnNotEquals"}
    ]
    patterns = [pattern for some in denied for pattern in some]
    for action in GUARDED:
        if not any(fnmatchcase(f"s3:{action}", pattern) for pattern in patterns):
            yield f"workspace-bucket.json leaves s3:{action} to everyone with rights in the account"


def _buckets(tree: Tree) -> Iterator[str]:
    """Every place is closed to the public, expires what nobody finished, and holds what it should."""
    for name, body in tree.of("aws_s3_bucket_public_access_block").items():
        yield from (f"public access block {name}: {key} is not true" for key in PUBLIC if body.get(key) is not True)
    everything = {"workspace", "release", "trail"}
    for kind in ("policy", "lifecycle_configuration", "server_side_encryption_configuration"):
        if missing := everything - set(tree.of(f"aws_s3_bucket_{kind}")):
            yield f"no {kind} of {sorted(missing)}"
    if "workspace" in tree.of("aws_s3_bucket_versioning"):
        yield "the workspace is versioned, so a purge would hide and not destroy"
    rule = tree.named["aws_s3_bucket_lifecycle_configuration.workspace"]["rule"][0]
    if "expiration" not in rule or "abort_incomplete_multipart_upload" not in rule:
        yield "personal data in the workspace does not expire"
    sealed = str(tree.named["aws_s3_bucket_server_side_encryption_configuration.workspace"])
    if "aws_kms_key.workspace.arn" not in sealed:
        yield "the workspace is not sealed by its own key"


def _secrets(tree: Tree) -> Iterator[str]:
    if tree.of("aws_secretsmanager_secret_version"):
        yield "Terraform's state would hold the secret"
    if re.search(r"AKIA[0-9A-Z]{16}|(?:secret|password|token)\w*\s*=\s*\"[^\"$]{20,}\"", tree.text, re.IGNORECASE):
        yield "something that looks like a secret"


def _network(tree: Tree) -> Iterator[str]:
    """Machines are reached by themselves and by ssh from given addresses, and reach themselves and HTTPS."""
    groups = tree.of("aws_security_group")
    if set(groups) != {"cluster"}:
        yield "the machines of the cluster have no security group of their own"
        return
    if {"ingress", "egress"} & set(groups["cluster"]):
        yield "the security group has rules that are not looked at here"
    for direction, port in (("ingress", 22), ("egress", 443)):
        for name, body in tree.of(f"aws_vpc_security_group_{direction}_rule").items():
            within = _bare(body.get("referenced_security_group_id", "")) == "${aws_security_group.cluster[0].id}"
            if within == any(key.startswith(("cidr", "prefix")) for key in body):
                yield f"the {direction} rule {name} names no peer, or two"
            if not within and (body.get("from_port"), body.get("to_port")) != (port, port):
                yield f"the {direction} rule {name} opens another port than {port}"
            given = "var.ssh_from" in str(body.get("for_each")) and _bare(body.get("cidr_ipv4", "")) == "${each.value}"
            if direction == "ingress" and not within and not given:
                yield f"the {direction} rule {name} lets in addresses that nobody gave"
    accepted = re.search(r'regex\(\\?"([^"\\]+)\\?", one\)', str(tree.named.get("var.ssh_from")))
    if accepted is None or re.search(accepted[1], "0.0.0.0/0") or not re.search(accepted[1], "203.0.113.7/32"):
        yield "everyone may be let in by ssh"
