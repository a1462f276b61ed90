"""infra/terraform holds together, and neither its workspace's bucket nor its network lets in more than it must.

checkov looks at the resources; here is what it does not know. What each role may do is tried on a server, in
test_infra_policies.py and test_infra_head.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import Any

import hcl2
import pytest

TERRAFORM = Path(__file__).parents[2] / "infra" / "terraform"
REFERENCE = re.compile(r"(?<![\w.\"/-])((?:data\.)?aws_\w+\.\w+|var\.\w+|local\.\w+)")
TEMPLATE = re.compile(r"templatefile\(\"\$\{path\.module\}/(policies/[\w$.{}-]+)\", (\{.*\})\)", re.DOTALL)


class Tree:
    """All files of a folder as one: `named` maps `aws_kms_key.workspace` or `var.region` to its body."""

    def __init__(self, folder: Path) -> None:
        self.text = "\n".join(path.read_text() for path in sorted(folder.glob("*.tf")))
        self.named: dict[str, Any] = {}
        document = hcl2.loads(self.text)
        for kind, prefix in (("resource", ""), ("data", "data.")):
            for block in document.get(kind, ()):
                for type_, bodies in block.items():
                    self._add(f"{prefix}{_bare(type_)}", bodies)
        for kind, prefix in (("variable", "var"), ("locals", "local")):
            for block in document.get(kind, ()):
                self._add(prefix, block)

    def _add(self, prefix: str, bodies: dict[str, Any]) -> None:
        self.named |= {f"{prefix}.{_bare(name)}": body for name, body in bodies.items() if not name.startswith("__")}

    def of(self, kind: str) -> dict[str, Any]:
        """Name -> body of every resource of a kind."""
        return {name.split(".")[1]: body for name, body in self.named.items() if name.startswith(f"{kind}.")}


def _bare(name: str) -> str:
    return name.strip('"')


@pytest.fixture(scope="module")
def tree() -> Tree:
    return Tree(TERRAFORM)


def test_what_is_used_is_declared(tree: Tree) -> None:
    code = re.sub(r"^\s*#.*$", "", tree.text, flags=re.MULTILINE)
    assert set(REFERENCE.findall(code)) <= set(tree.named)


def test_every_policy_is_read_and_gets_the_names_that_it_wants(tree: Tree) -> None:
    used: set[str] = set()
    for name, body in tree.named.items():
        for path, given in TEMPLATE.findall(str(body.get("policy", "")) if isinstance(body, dict) else ""):
            stages = re.findall(r'"(\w+)"', str(tree.named["local.stages"])) if "$" in path else [""]
            for file in (path.replace("${each.key}", stage) for stage in stages):
                used.add(file)
                wanted = set(Template((TERRAFORM / file).read_text()).get_identifiers())
                assert wanted <= set(re.findall(r"(\w+)\s*[=:] ", given)), f"{file} of {name}"
    assert used == {f"policies/{path.name}" for path in (TERRAFORM / "policies").iterdir()}


def test_the_workspace_expires_is_sealed_by_its_own_key_and_keeps_no_versions(tree: Tree) -> None:
    rule = tree.named["aws_s3_bucket_lifecycle_configuration.workspace"]["rule"][0]
    assert {"expiration", "abort_incomplete_multipart_upload"} <= set(rule)
    sealed = str(tree.named["aws_s3_bucket_server_side_encryption_configuration.workspace"])
    assert "aws_kms_key.workspace.arn" in sealed
    assert "workspace" not in tree.of("aws_s3_bucket_versioning"), "a purge would hide and not destroy"
    for kind in ("policy", "lifecycle_configuration", "server_side_encryption_configuration"):
        assert {"workspace", "release", "trail"} <= set(tree.of(f"aws_s3_bucket_{kind}"))


def test_terraforms_state_holds_no_secret(tree: Tree) -> None:
    assert not tree.of("aws_secretsmanager_secret_version")
    assert not re.search(
        r"AKIA[0-9A-Z]{16}|(?:secret|password|token)\w*\s*=\s*\"[^\"$]{20,}\"", tree.text, re.IGNORECASE
    )
