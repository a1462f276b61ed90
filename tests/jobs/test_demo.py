"""`make demo` starts over where it ran before, and the job script says what it would run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

JOBS = Path(__file__).parents[2] / "jobs"


def test_the_demo_starts_over_and_shows_where_everything_is(tmp_path: Path) -> None:
    size = ["--people", "6", "--photos-per-person", "1", "--actors", "0"]
    command = [sys.executable, str(JOBS / "demo.py"), "--folder", str(tmp_path), *size]
    for place in ("input", "workspace", "release"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "of an earlier run").touch()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for place in ("input", "workspace/sheet.jpg", "release/data", "release/manifest"):
        assert str(tmp_path / place) in done.stdout and (tmp_path / place).exists()
    assert not list(tmp_path.rglob("of an earlier run"))
    assert len(list((tmp_path / "release" / "data").glob("*.tar"))) == 4


def test_the_constants_of_the_job_script_are_a_job() -> None:
    spec = importlib.util.spec_from_file_location("anonymize", JOBS / "anonymize.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.config()
    assert (config.method.name, config.method.k, config.secret.env) == ("k-diff", 5, "ANONLIB_SECRET")
