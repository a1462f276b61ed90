"""checkov, which knows the usual mistakes of AWS, Docker and Kubernetes, finds none in infra/ that is not explained.

It lives in an environment of its own, which `make test` makes, because it pins what the project needs newer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

INFRA = Path(__file__).parents[2] / "infra"
CHECKOV = Path(os.environ.get("CHECKOV") or Path(sys.prefix) / "checkov" / "bin" / "checkov")
FRAMEWORKS = ("terraform", "dockerfile", "kubernetes")

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
