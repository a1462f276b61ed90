"""A job that is killed at any moment is finished by the next run, in the bytes of a run that nobody disturbed.

By hand, on a larger dataset and at more moments: python tests/e2e/test_kill.py INPUT MOMENTS
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from anonlib.job import Job
from tests.support.runs import Run, Started, in_session, job, lasting, run_job, started

VICTIMS = ("driver", "actor")
_LONGEST_PAUSE_S = 1.5


def kill_and_resume(clean: Run, victim: str, moment: int, root: Path) -> str:
    """Kill `victim` at a random moment that `moment` seeds, run the job again, compare; says when it struck."""
    # A driver is killed in turns as the serial twin and on Ray; only Ray has actors.
    on_ray = victim == "actor" or moment % 2 == 1
    config = job(clean.input, root, ray={"actors": 2 if on_ray else 0})
    draw = random.Random(f"{victim} {moment}")
    # Scans, a block of surrogates and half of the renders: there is always something left to lose.
    after, pause = draw.randrange(2 * clean.summary.shards - 1), draw.uniform(0, _LONGEST_PAUSE_S)
    with started(config, root / "process") as run:
        if on_ray:
            # Before the first actor lies Ray's own start, which leaves nothing to resume.
            run.wait_for(lambda: an_actor(run, draw))
        run.wait_for(lambda: len(run.lines) >= after)
        time.sleep(pause)
        pid = run.process.pid if victim == "driver" else run.wait_for(lambda: an_actor(run, draw))
        struck = f"{victim} killed after {len(run.lines)} outcomes ({after} and {pause:.2f} s)"
        assert pid is not None and run.process.poll() is None, f"{struck}: the job was over before"
        os.kill(pid, signal.SIGKILL)
        code = run.finish()
        assert code == (-signal.SIGKILL if victim == "driver" else 0), (struck, code, run.complaints)
    # A laptop finishes what the cluster began.
    summary = Job(job(clean.input, root)).run()
    assert summary == clean.summary, struck
    for place, expected in ((root / "release", clean.output), (root / "workspace", clean.workspace)):
        assert lasting(place) == lasting(expected), struck
    return struck


def an_actor(run: Started, draw: random.Random) -> int | None:
    """The pid of one of the job's actors that is at work."""
    actors = [
        pid for pid, command in in_session(run.process.pid) if command.startswith("ray::") and "Worker" in command
    ]
    return draw.choice(sorted(actors)) if actors else None


@pytest.mark.parametrize(("victim", "moment"), [("driver", 0), ("driver", 1), ("actor", 0)])
def test_a_killed_job_is_finished_in_the_same_bytes(finished: Run, victim: str, moment: int, tmp_path: Path) -> None:
    kill_and_resume(finished, victim, moment, tmp_path)


def main(source: Path, moments: int) -> None:
    with tempfile.TemporaryDirectory(prefix="anonlib-kill-") as folder:
        clean = run_job(source, Path(folder) / "clean")
        print(f"clean: {clean.summary}", flush=True)
        for victim in VICTIMS:
            for moment in range(moments):
                struck = kill_and_resume(clean, victim, moment, Path(folder) / f"{victim}-{moment}")
                print(f"{struck}: resumed to the same bytes", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
