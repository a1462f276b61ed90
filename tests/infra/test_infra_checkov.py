"""checkov, which knows the usual mistakes of AWS, Docker and Kubernetes, finds none in infra/ that is not explained.

It lives in an environment of its own, which `make test` makes, because it pins what the project needs newer.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

INFRA = Path(__file__).parents[2] / "infra"
CHECKOV = Path(os.environ.get("CHECKOV") or Path(sys.prefix) / "checkov" / "bin" / "checkov")
FRAMEWORKS = ("terraform", "dockerfile", "kubernetes")
PLANTED = {
    "CKV_AWS_7": ("terraform/keys.tf", "enable_key_rotation     = true", "enable_key_rotation     = false"),
    "CKV2_AWS_6": ("terraform/buckets.tf", "block_public_acls       = true", "block_public_acls       = false"),
    "CKV_AWS_36": ("terraform/trail.tf", "enable_log_file_validation    = true", "enable_log_file_validation = false"),
    "CKV_DOCKER_3": ("docker/Dockerfile", "USER 1000:1000\n", ""),
    "CKV_K8S_20": ("kuberay/cronjob.yaml", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"),
}

pytestmark = pytest.mark.skipif(not CHECKOV.is_file(), reason=f"there is no {CHECKOV}: `make test` makes it")


def failed(folder: Path) -> set[str]:
    """The ids of checkov's failed checks; it asks no network."""
    command = [str(CHECKOV), "-d", str(folder), "--framework", *FRAMEWORKS, "--skip-download", "-o", "json", "--quiet"]
    apart = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=apart, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert {one["check_type"] for one in found} == set(FRAMEWORKS)
    assert not any(one["summary"]["parsing_errors"] for one in found)
    return {check["check_id"] for one in found for check in one["results"]["failed_checks"]}


def test_checkov_finds_nothing() -> None:
    assert failed(INFRA) == set()


def test_checkov_finds_what_is_planted(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(INFRA, tmp_path / "infra"))
    for name, old, new in PLANTED.values():
        text = (copy / name).read_text()
        assert old in text
        (copy / name).write_text(text.replace(old, new))
    assert set(PLANTED) <= failed(copy)
