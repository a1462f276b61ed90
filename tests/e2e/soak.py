"""Faults for a job on a cluster, at moments and of kinds that a seed draws: what tests/e2e/test_soak.py throws.

S3 fails, actors, decoders, drivers, nodes and the whole cluster are killed, processes are paused, and drivers work
against each other. A fault strikes once so many markers are there, so the same seed strikes at the same progress.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from anonlib.config import JobConfig
from anonlib.storage import OURS, open_storage
from tests.faults.proxy import FaultProxy, fits
from tests.support.cluster import Cluster, Node, Submitted
from tests.support.runs import Run, salted
from tests.support.s3server import S3Server, download

PASSING = ("500", "503", "slow", "reset-before", "reset-after", "torn-body", "torn-upload")
"""Faults of S3 that a job sits out; `expired` ends the driver, and the next one has new credentials."""
KINDS = {
    "S3": 16, "S3 expired": 2, "actor killed": 5, "actor paused": 3, "decoder killed": 3, "driver killed": 3,
    "driver paused, another started": 2, "second driver": 2, "node killed, another joins": 3, "cluster killed": 1,
}  # fmt: skip
"""Of forty faults, about how many are of a kind."""
_PAUSE_S = 6.0
DECODER = "anonlib.media.sandbox"
_LONGEST_S = 3600.0
_KILLED = (None, -signal.SIGKILL, 128 + signal.SIGKILL)
_BUCKETS = ("photos", "restricted", "release")


@dataclass(frozen=True)
class Fault:
    """One fault to come: its kind, and how many markers there are when it strikes."""

    kind: str
    markers: int


@dataclass(frozen=True)
class Struck:
    """One fault that came: seconds since the soak began, markers there were, and whom or what it met."""

    at: float
    markers: int
    kind: str
    what: str


def drawn(seed: int, faults: int, markers: int) -> list[Fault]:
    """So many faults, in the order of the moments at which they strike."""
    draw = random.Random(seed)
    kinds = [kind for kind, times in KINDS.items() for _ in range(times)]
    rounds = [draw.sample(kinds, len(kinds)) for _ in range(1 + faults // len(kinds))]
    chosen = [kind for one in rounds for kind in one][:faults]
    # The last tenth is kept free, so that no fault finds the job already over.
    moments = sorted(draw.randrange(max(1, markers * 9 // 10)) for _ in chosen)
    return [Fault(kind, moment) for kind, moment in zip(chosen, moments, strict=True)]


class Soak:
    """A job, the cluster it runs on, the S3 it lives on, and what befalls them."""

    def __init__(self, clean: Run, root: Path, s3: S3Server, faults: list[Fault], seed: int, proxy: FaultProxy) -> None:
        self.clean, self.root, self.s3, self.proxy = clean, root, s3, proxy
        self.coming, self.draw = list(faults), random.Random(seed)
        self.struck: list[Struck] = []
        self.drivers: list[Submitted] = []
        self.started = 0
        self.sentences: Counter[str] = Counter()
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._etags = {
            str(path.relative_to(clean.output)): hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            for path in clean.output.rglob("*")
            if path.is_file()
        }
        self._began = time.monotonic()
        self._clusters = 0
        self._strikes: dict[str, Callable[[], str | None]] = {
            "S3": lambda: self._s3(self.draw.choice(PASSING)),
            "S3 expired": lambda: self._s3("expired"),
            "actor killed": lambda: self._signal(self._actors(), signal.SIGKILL),
            "actor paused": lambda: self._pause(self._actors()),
            "decoder killed": lambda: self._signal(self._decoders(), signal.SIGKILL),
            "driver killed": lambda: self._signal(self._drivers(), signal.SIGKILL),
            "driver paused, another started": self._overtake,
            "second driver": self._second,
            "node killed, another joins": self._replace_node,
            "cluster killed": self._replace_cluster,
        }
        buckets = {name: s3.bucket() for name in _BUCKETS}
        self.stores = {name: f"s3://{bucket}/soak" for name, bucket in buckets.items()}
        source = open_storage(self.stores["photos"], s3.options)
        for path in sorted(clean.input.iterdir()):
            source.publish(path.name, path)
        self.config = salted(self._job(), s3.options)
        self.file = root / "job.yaml"
        self.file.write_text(self.config.to_yaml())

    def _job(self) -> JobConfig:
        document = self.clean.config.model_dump(mode="json", exclude={"storage", "ray", "secret"})
        document |= {
            "input": document["input"] | {"uri": self.stores["photos"]},
            "output": {"uri": self.stores["release"], "release": self.clean.config.output.release},
            "workspace": {"uri": self.stores["restricted"]},
            "storage": {"endpoint_url": self.proxy.endpoint, "region": self.s3.options.region},
            "secret": {"env": "ANONLIB_SECRET"},
            "ray": {"actors": None},
        }
        return JobConfig.model_validate(document)

    def run(self, cluster: Cluster, say: Callable[[str], object] = print) -> None:
        """Until a driver says that the job is done, and no other is left; drivers that end before are followed."""
        self.cluster, self._folder = cluster, cluster.folder
        done = False
        while not (done and not self.drivers):
            assert time.monotonic() - self._began < _LONGEST_S, f"not done after {_LONGEST_S:.0f} s"
            if not self.drivers:
                self._submit()
            for _, act in [one for one in self._later if one[0] <= time.monotonic()]:
                act()
            self._later = [one for one in self._later if one[0] > time.monotonic()]
            there = self.markers()
            if self.coming and there >= self.coming[0].markers and not done:
                what = self._strikes[self.coming[0].kind]()
                if what is not None:
                    fault = self.coming.pop(0)
                    self.struck.append(Struck(time.monotonic() - self._began, there, fault.kind, what))
                    say(f"{len(self.struck)} {self.struck[-1]}")
                    self.look()
            for driver in [one for one in self.drivers if one.over()]:
                self.drivers.remove(driver)
                done = done or driver.code == self.clean.summary.code
                if driver.code not in (*_KILLED, self.clean.summary.code):
                    said = [line for line in driver.logs.splitlines() if line.startswith("anonlib: ")]
                    assert said, f"a driver ended without a sentence: {driver.logs[-3000:]}"
                    self.sentences[said[-1]] += 1
                    say(said[-1])
            time.sleep(0.2)

    def markers(self) -> int:
        """How many there are, of every stage; asked behind the proxy's back."""
        return sum("/commits/" in key for place in ("restricted", "release") for key, _ in self._objects(place))

    def look(self) -> None:
        """Whatever lies in the release at this moment is a whole file of the undisturbed run."""
        for key, etag in self._objects("release"):
            path = key.removeprefix("soak/")
            if not Path(path).name.startswith(OURS):
                assert self._etags[path] == etag, f"{path} is not what an undisturbed run writes"

    def fetched(self, to: Path) -> Path:
        """The release, on this disk."""
        return download(open_storage(self.stores["release"], self.s3.options), to)

    # ---- what befalls --------------------------------------------------------------------------------------------

    def _s3(self, fault: str) -> str:
        method = self.draw.choice([one for one in ("GET", "PUT") if fits(fault, one)])
        times = 1 if fault == "expired" else self.draw.randint(1, 3)
        self.proxy.inject(fault, f"{method} *", times)
        return f"{fault}, the next {times} {method}"

    def _signal(self, pids: list[int], number: signal.Signals) -> str | None:
        if not pids:
            return None
        pid = self.draw.choice(sorted(pids))
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            return f"one of {len(pids)}"
        return None

    def _pause(self, pids: list[int]) -> str | None:
        if not pids:
            return None
        pid = self.draw.choice(sorted(pids))
        os.kill(pid, signal.SIGSTOP)
        self._later.append((time.monotonic() + _PAUSE_S, lambda: _go_on(pid)))
        return f"one of {len(pids)} for {_PAUSE_S:.0f} s"

    def _overtake(self) -> str | None:
        paused = self._pause(self._drivers())
        if paused is not None:
            self._submit()
        return paused

    def _second(self) -> str | None:
        if not self._drivers():
            return None
        self._submit()
        return f"{len(self.drivers)} at once"

    def _replace_node(self) -> str | None:
        workers = [node for node in self.cluster.nodes.values() if node.name != "head" and node.actors()]
        if not workers:
            return None
        node = self.draw.choice(workers)
        actors = len(node.actors())
        self.cluster.kill(node)
        self.cluster.start_node()
        return f"{node.name} with {actors} actors"

    def _replace_cluster(self) -> str | None:
        if not self._actors():
            return None
        lost = len(self.cluster.nodes)
        self.cluster.close()
        self.drivers.clear()
        self._clusters += 1
        self.cluster.folder = self._folder / str(self._clusters)
        self.cluster.start_head()
        for _ in range(lost - 1):
            self.cluster.start_node()
        return f"{lost} nodes, and all drivers"

    # ---- who is there --------------------------------------------------------------------------------------------

    def _submit(self) -> None:
        self.drivers.append(self.cluster.submit(self.file))
        self.started += 1

    def _nodes(self) -> list[Node]:
        return list(self.cluster.nodes.values())

    def _actors(self) -> list[int]:
        return [pid for node in self._nodes() for pid in node.actors()]

    def _drivers(self) -> list[int]:
        return [pid for node in self._nodes() for pid in node.drivers()]

    def _decoders(self) -> list[int]:
        return [pid for node in self._nodes() for pid, command in node.processes() if DECODER in command]

    def _objects(self, place: str) -> Iterator[tuple[str, str]]:
        bucket, _, prefix = self.stores[place].removeprefix("s3://").partition("/")
        pages = self.s3.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for one in page.get("Contents", ()):
                yield one["Key"], one["ETag"].strip('"')


def _go_on(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
