"""A Ray head that infra/aws/cluster.yaml starts does nothing without its token, and no job joins one that would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.namespaces import refused, unshared

HEAD = Path(__file__).with_name("ray_head.py")

ABSENT = [
    name for name in ("aiohttp_cors", "grpc", "opencensus", "prometheus_client", "virtualenv") if not find_spec(name)
]
WHY_NOT = f"ray[default] is not installed ({', '.join(ABSENT)})" if ABSENT else refused()

pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")


@contextmanager
def answers_of(mode: str) -> Iterator[dict[str, Any]]:
    """What a head answers that is started in this mode; it ends with its namespace, before the block begins."""
    # Not below a test's folder: the path of a socket may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        alone = ["--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, str(HEAD), folder, mode]
        done = subprocess.run(
            [*unshared("--net"), *alone], env=dict(os.environ), capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield json.loads(done.stdout.splitlines()[-1])


def test_a_head_as_we_start_it_refuses_a_job_without_its_token() -> None:
    with answers_of("as-shipped") as answers:
        assert answers["post"] == [401, 403, 200]
        assert answers["files"] == [] and answers["metrics"] == 200, "Prometheus sends no token"
        assert answers["job of the head"] == "joined 1 None"
        refused = answers["job with another token"]
        assert "was not joined" in refused and refused.splitlines()[-1].endswith("names"), refused


def test_a_job_leaves_a_head_that_asks_for_no_token_unless_told_to_accept_it() -> None:
    with answers_of("without-token") as answers:
        assert answers["post"] == [200, 200, 200], "the planted head is not open, so nothing was shown"
        assert "has no authentication" in answers["job with another token"]
        assert answers["job with another token"].endswith("accept that by RAY_AUTH_MODE=disabled")
        joined, warned = answers["job that accepts it"].splitlines()
        assert joined == "joined 1 None" and warned.endswith("(RAY_AUTH_MODE=disabled accepts that)")
