"""Faults over one run on a cluster leave the bytes of a run that nobody disturbed: nothing lost, nothing doubled.

A fault strikes once so many markers are there, so that the same list strikes at the same progress.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from anonlib.config import JobConfig
from anonlib.storage import OURS, open_storage
from anonlib.verification.release import verify
from tests.faults.proxy import FaultProxy, fits
from tests.support.cluster import Cluster, Submitted, cluster, missing
from tests.support.runs import SECRET, Run, contents, lasting, salted
from tests.support.s3server import S3Server

PASSING = ("500", "503", "slow", "reset-before", "reset-after", "torn-body", "torn-upload")
"""Faults of S3 that a job sits out."""
DECODER = "anonlib.media.sandbox"
FAULTS = [("S3", 0), ("actor killed", 1), ("decoder killed", 1), ("node killed", 2), ("driver killed", 3), ("S3", 4)]
"""Kind, and how many markers there are when it strikes."""
_LONGEST_S = 600.0
_KILLED = (None, -signal.SIGKILL, 128 + signal.SIGKILL)
_BUCKETS = ("photos", "restricted", "release")


class Soak:
    """A job, the cluster it runs on, the S3 it lives on, and what befalls them."""

    def __init__(self, clean: Run, root: Path, s3: S3Server, proxy: FaultProxy, seed: int) -> None:
        self.clean, self.s3, self.proxy, self.draw = clean, s3, proxy, random.Random(seed)
        self.struck: list[str] = []
        self.drivers: list[Submitted] = []
        self._etags = {
            str(path.relative_to(clean.output)): hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            for path in clean.output.rglob("*")
            if path.is_file()
        }
        self.stores = {name: f"s3://{s3.bucket()}/soak" for name in _BUCKETS}
        source = open_storage(self.stores["photos"], s3.options)
        for path in sorted(clean.input.iterdir()):
            source.publish(path.name, path)
        document = clean.config.model_dump(mode="json", exclude={"storage", "ray", "secret"})
        document |= {
            "input": document["input"] | {"uri": self.stores["photos"]},
            "output": {"uri": self.stores["release"], "release": clean.config.output.release},
            "workspace": {"uri": self.stores["restricted"]},
            "storage": {"endpoint_url": proxy.endpoint, "region": s3.options.region},
            "secret": {"env": "ANONLIB_SECRET"},
            "ray": {"actors": None},
        }
        self.file = root / "job.yaml"
        self.file.write_text(salted(JobConfig.model_validate(document), s3.options).to_yaml())

    def run(self, nodes: Cluster, faults: list[tuple[str, int]]) -> None:
        """Until a driver says that the job is done, and no other is left; drivers that end before are followed."""
        strikes: dict[str, Callable[[], str | None]] = {
            "S3": self._s3,
            "node killed": lambda: self._replace_node(nodes),
            "actor killed": lambda: self._kill([pid for node in nodes.nodes.values() for pid in node.actors()]),
            "driver killed": lambda: self._kill([pid for node in nodes.nodes.values() for pid in node.drivers()]),
            "decoder killed": lambda: self._kill(
                [pid for node in nodes.nodes.values() for pid, command in node.processes() if DECODER in command]
            ),
        }
        began, coming, done = time.monotonic(), list(faults), False
        while not (done and not self.drivers):
            assert time.monotonic() - began < _LONGEST_S, f"not done after {_LONGEST_S:.0f} s"
            if not self.drivers:
                self.drivers.append(nodes.submit(self.file))
            there = sum("/commits/" in key for place in ("restricted", "release") for key, _ in self._objects(place))
            if coming and there >= coming[0][1] and not done and strikes[coming[0][0]]() is not None:
                self.struck.append(coming.pop(0)[0])
                self.look()
            for driver in [one for one in self.drivers if one.over()]:
                self.drivers.remove(driver)
                done = done or driver.code == self.clean.summary.code
                if driver.code not in (*_KILLED, self.clean.summary.code):
                    assert "\nanonlib: " in driver.logs, f"a driver ended without a sentence: {driver.logs[-3000:]}"
            time.sleep(0.2)

    def look(self) -> None:
        """Whatever lies in the release at this moment is a whole file of the undisturbed run."""
        for key, etag in self._objects("release"):
            path = key.removeprefix("soak/")
            if not Path(path).name.startswith(OURS):
                assert self._etags[path] == etag, f"{path} is not what an undisturbed run writes"

    def _s3(self) -> str:
        fault = self.draw.choice(PASSING)
        method = self.draw.choice([one for one in ("GET", "PUT") if fits(fault, one)])
        self.proxy.inject(fault, f"{method} *", self.draw.randint(1, 3))
        return fault

    def _kill(self, pids: list[int]) -> str | None:
        with suppress(ProcessLookupError, IndexError):
            os.kill(self.draw.choice(sorted(pids)), signal.SIGKILL)
            return f"one of {len(pids)}"
        return None

    def _replace_node(self, nodes: Cluster) -> str | None:
        """A machine with work in flight vanishes, and another comes in its place."""
        busy = [node for node in nodes.nodes.values() if node.name != "head" and node.actors()]
        if not busy:
            return None
        nodes.kill(busy[0])
        return nodes.start_node().name

    def _objects(self, place: str) -> Iterator[tuple[str, str]]:
        bucket, _, prefix = self.stores[place].removeprefix("s3://").partition("/")
        pages = self.s3.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for one in page.get("Contents", ()):
                yield one["Key"], one["ETag"].strip('"')


@pytest.mark.soak
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_faults_leave_the_bytes_of_an_undisturbed_run(finished: Run, s3: S3Server, tmp_path: Path) -> None:
    with FaultProxy(s3.endpoint) as proxy, s3.acting_as():
        soak = Soak(finished, tmp_path, s3, proxy, 3)
        rights = {"AWS_ACCESS_KEY_ID": s3.root.key_id, "AWS_SECRET_ACCESS_KEY": s3.root.secret}
        with cluster(nodes=2, ANONLIB_SECRET=SECRET, **rights) as nodes:
            soak.run(nodes, FAULTS)
        assert soak.struck == [kind for kind, _ in FAULTS]
        release = tmp_path / "release"
        storage = open_storage(soak.stores["release"], s3.options)
        for entry in storage.list():
            storage.fetch(entry.path, release / entry.path)
        release_markers = soak.stores["release"].removeprefix("s3://") + "/commits/"
        claims = {key: times for key, times in proxy.claims.items() if key.startswith(release_markers)}
        assert len(claims) == finished.summary.shards and set(claims.values()) == {1}, claims
    assert lasting(release) == contents(finished.output)
    verify(open_storage(str(release)))
