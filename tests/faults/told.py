"""Runs drivers.py beside the tests, whose own process holds models that no fork would survive."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from anonlib.config import JobConfig
from anonlib.storage import OURS, Storage
from tests.faults import drivers


@dataclass(frozen=True)
class Told:
    """How a run ended: its exit code, the writes it began, the claims it won, and why it stopped."""

    code: int
    writes: list[str]
    won: list[str]
    said: str


def told(verb: str, config: JobConfig, *more: str | JobConfig) -> list[Told]:
    """What `drivers.py VERB` tells of its runs."""
    with tempfile.TemporaryDirectory() as folder:
        given = []
        for number, one in enumerate((config, *more)):
            if isinstance(one, JobConfig):
                path = Path(folder) / f"{number}.yaml"
                path.write_text(one.to_yaml())
                one = str(path)
            given.append(one)
        command = [sys.executable, drivers.__file__, verb, *given]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [Told(**json.loads(line)) for line in done.stdout.splitlines()]


def apart(make: Callable[[Path], Path], folder: Path) -> Path:
    """What `make` makes in `folder`, by a process of its own, so that no model is loaded in one that forks."""
    process = multiprocessing.get_context("spawn").Process(target=make, args=(folder,))
    process.start()
    process.join()
    assert process.exitcode == 0
    return folder


def made(root: Storage) -> dict[str, bytes]:
    """Everything in a job's two places; of the workspace without what was left unfinished and what runs spent."""
    found = [entry.path for entry in root.list(unfinished=True)]
    kept = [path for path in found if path.startswith("release/") or OURS not in path]
    kept = [path for path in kept if not path.startswith("workspace/spending/")]
    return {path: root.read(path) for path in kept if path.startswith(("release/", "workspace/"))}
