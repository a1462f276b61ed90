"""Jobs that ask before every write, so that a test may kill, stop or interleave them exactly there.

A gap is before a write, in the middle of it (half of its bytes are in the unfinished file, or at the server) or after
the last one; "before" the next write is after this one. `outcomes` runs this file in a process of its own, which
imports what a job needs and forks for every run: the process of the tests holds models that no fork would survive.

    python drivers.py kill JOB.yaml GAP...       one run a gap, killed there, and a last one that is left alone
    python drivers.py race JOB.yaml SEED         two runs at once, whose writes are let through in a drawn order
    python drivers.py orphan JOB.yaml GAP THEN...   one is stopped at a gap, and wakes up when all else is done: THEN is
                                                    another job to run, a folder that is cleared, a decision on the
                                                    release, or a gap at which one more run of the job waits for it
"""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from anonlib.config import JobConfig, load_config
from anonlib.execution.rounds import SerialRunner
from anonlib.job import Job
from anonlib.storage import OURS, Storage, local
from anonlib.storage.local import LocalStorage
from anonlib.storage.s3 import S3Storage
from anonlib.workspace import lease
from anonlib.workspace.decisions import Decision, DecisionLog
from anonlib.workspace.layout import RUN_NOTE, open_stores

WRITES = ("publish", "claim", "delete")
END = "before the end"
_GO, _HALF = b"g", b"h"


class Outcome(NamedTuple):
    """How a run ended: its exit code, the writes it began, the claims it won, and why it stopped."""

    code: int | None
    writes: list[str]
    won: list[str]
    why: str


def outcomes(verb: str, config: JobConfig, *more: str | JobConfig) -> list[Outcome]:
    """What the runs of `drivers.py VERB` come to."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = []
        for number, argument in enumerate((config, *more)):
            if isinstance(argument, JobConfig):
                path = Path(folder) / f"{number}.yaml"
                path.write_text(argument.to_yaml())
                argument = str(path)
            arguments.append(argument)
        command = [sys.executable, __file__, verb, *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [Outcome(*json.loads(line)) for line in done.stdout.splitlines()]


def made(root: Storage) -> dict[str, bytes]:
    """Everything in a job's two places; of the workspace without what was left unfinished."""
    paths = [entry.path for entry in root.list(unfinished=True)]
    kept = [path for path in paths if path.startswith("release/") or OURS not in path]
    kept = [path for path in kept if path != "workspace/job.yaml"]
    return {path: root.read(path) for path in kept if path.startswith(("release/", "workspace/"))}


class Driver:
    """A job in a child. `asks` is the write that it waits to begin, END at its end, None once it is over."""

    def __init__(self, config: JobConfig) -> None:
        self.outcome = Outcome(None, [], [], "")
        self.asks: str | None = None
        self._socket, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._socket.close()
            _Child(theirs).work(config)
        theirs.close()
        self._lines = self._socket.makefile("r")
        self._listen()

    def go(self, how: bytes = _GO) -> None:
        """Let it begin the write that it asks for, and wait until it asks for the next."""
        if self.asks != END:
            self.outcome.writes.append(str(self.asks))
        self._socket.sendall(how)
        self._listen()

    def run(self, until: str | None = None) -> Driver:
        """Go on to this gap, or to the end; not in the middle of a write, where it is killed."""
        while self.asks is not None and until not in (f"before {self.asks}", self.asks):
            self.go(_HALF if until == f"middle {self.asks}" else _GO)
        return self

    def kill(self) -> Driver:
        if self.asks is not None:
            os.kill(self.pid, signal.SIGKILL)
            self._listen()
        return self

    def _listen(self) -> None:
        for line in self._lines:
            kind, _, text = line.rstrip("\n").partition(" ")
            if kind == "asks":
                self.asks = text
                return
            if kind == "won":
                self.outcome.won.append(text)
            else:
                self.outcome = self.outcome._replace(why=text)
        self.asks = None
        self.outcome = self.outcome._replace(code=os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]))
        self._lines.close()
        self._socket.close()


class _Child:
    def __init__(self, parent: socket.socket) -> None:
        self.parent = parent

    def tell(self, text: str) -> None:
        self.parent.sendall(f"{text}\n".encode())

    def ask(self, what: str) -> None:
        self.tell(f"asks {what}")
        if self.parent.recv(1) == _HALF:
            _die_in_the_middle()

    def work(self, config: JobConfig) -> NoReturn:
        # The secret of a job that has none is drawn; here every job draws the same.
        secrets.token_hex = lambda size: "5e" * size
        for kind in (LocalStorage, S3Storage):
            for name in WRITES:
                setattr(kind, name, self.watched(name, getattr(kind, name)))
        code = 1
        try:
            code = Job(config, runner=SerialRunner()).run().code
        except Exception as error:  # noqa: BLE001
            self.tell(f"why {error}")
        finally:
            self.ask(END)
            os._exit(code)

    def watched(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(storage: Any, path: str, *rest: Any, **named: Any) -> Any:
            # A run's lease has another name each time, and nothing in a release rests on it.
            if path.startswith(f"{OURS}run-"):
                return method(storage, path, *rest, **named)
            write = f"{name} {storage.uri.rpartition('/')[2]}/{path}"
            self.ask(write)
            answer = method(storage, path, *rest, **named)
            if name == "claim" and answer:
                self.tell(f"won {write}")
            return answer

        return call


def _die_in_the_middle() -> None:
    """The next file that is flushed keeps half of its bytes; of the next body that is sent, half is."""

    def half_a_file(handle: int) -> None:
        os.truncate(f"/proc/self/fd/{handle}", os.fstat(handle).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    def half_a_body(self: socket.socket, data: Any, *flags: int) -> None:
        if bytes(data[:4]) == b"PUT ":
            send(self, data, *flags)
            return
        send(self, data[: len(data) // 2], *flags)
        os.kill(os.getpid(), signal.SIGKILL)

    send = socket.socket.sendall
    socket.socket.sendall = half_a_body  # type: ignore[assignment, method-assign]
    local.os.fsync = half_a_file  # type: ignore[assignment]


def race(config: JobConfig, seed: int) -> list[Driver]:
    """Two runs at once, whose writes are let through in a drawn order."""
    both, draw = [Driver(config), Driver(config)], random.Random(seed)
    while waiting := [driver for driver in both if driver.asks is not None]:
        draw.choice(waiting).go()
    return both


def orphan(config: JobConfig, gap: str, then: Sequence[str]) -> list[Driver]:
    """One run is stopped at a gap; folders are cleared, other jobs begin and end, and it wakes up and goes on.

    A run that waits at a gap of its own goes on after that.
    """
    asleep = Driver(config).run(until=gap)
    os.kill(asleep.pid, signal.SIGSTOP)
    awake = []
    for event in then:
        if Path(event).is_dir():
            shutil.rmtree(event)
        elif event.endswith(".yaml"):
            awake.append(Driver(load_config(Path(event))).run())
        elif event.startswith("{"):
            stores = open_stores(config)
            run = json.loads(stores.release.read(RUN_NOTE))["run"]
            DecisionLog(stores.workspace, run).add(Decision.model_validate_json(event))
        else:
            awake.append(Driver(config).run(until=event))
    os.kill(asleep.pid, signal.SIGCONT)
    return [asleep.run(), *(driver.run() for driver in awake)]


def main() -> None:
    # A run that is stopped is known to be so after two seconds, not after twenty.
    lease.BEAT_S, lease.WATCH_S = 0.2, 2.0
    config, more = load_config(Path(sys.argv[2])), sys.argv[3:]
    if sys.argv[1] == "kill":
        drivers = [Driver(config).run(until=gap).kill() for gap in more] + [Driver(config).run()]
    elif sys.argv[1] == "race":
        drivers = race(config, int(more[0]))
    else:
        drivers = orphan(config, more[0], more[1:])
    for driver in drivers:
        print(json.dumps(driver.outcome), flush=True)


if __name__ == "__main__":
    main()
