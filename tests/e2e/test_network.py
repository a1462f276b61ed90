"""No packet of a job leaves its machine for anybody but the configured bucket: counted by the kernel, not believed.

The job runs in a network namespace whose only neighbour is the S3 server, with a default route on which everything
else would leave and be seen: names asked of a DNS server, telemetry, a licence check. A process that does such things
on purpose is seen by the same witness. As a privacy officer, on a job of your own choice, as root or with user
namespaces (`cluster` is `ray job submit` on two nodes):

    python tests/e2e/test_network.py serial|ray|cluster

On a cluster it is Ray's head, and not the job, that once asks its cloud for metadata: Ray 2.60 knows no way to stop it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from anonlib.storage import open_storage
from tests.support.runs import SECRET, Run, contents, job, salted
from tests.support.s3server import REGION, download, running
from tests.support.witness import CLIENT, LINK, SERVER, Destination, new_namespace, outside, refused

ROOT = Path(__file__).parents[2]
FOREIGN = "192.0.2.1"  # RFC 5737: belongs to nobody
WAYS: dict[str, dict[str, Any]] = {"serial": {"actors": 0}, "ray": {"actors": 2}, "cluster": {"actors": 2}}

_VIOLATOR = f"""
import socket, urllib.request
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"a template", ("{FOREIGN}", 9))
for attempt in (lambda: urllib.request.urlopen("http://{FOREIGN}:8080/usage", timeout=0.2),
                lambda: socket.getaddrinfo("telemetry.example.com", 443)):
    try:
        attempt()
    except OSError:
        pass
"""


def observe(way: str, source: Path, folder: Path) -> dict[str, Any]:
    """Run in a fresh namespace: a job from bucket to bucket in another one inside it, and what left that one."""
    # What a shell at hand happens to set must not make the job quieter than it is; how it computes may stay.
    kept = ("PATH", "HOME", "LANG", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE")
    mine = {name: os.environ[name] for name in kept if name in os.environ}
    with outside() as inside, running(folder, SERVER) as server, server.acting_as():
        bucket = server.bucket()
        storage = open_storage(f"s3://{bucket}/photos", server.options)
        for path in sorted(source.iterdir()):
            storage.publish(path.name, path)
        config = job(
            f"s3://{bucket}/photos",
            folder,
            output={"uri": f"s3://{bucket}/release", "release": "tests"},
            workspace={"uri": f"s3://{bucket}/workspace"},
            storage={"endpoint_url": server.endpoint, "region": REGION},
            secret={"env": "ANONLIB_SECRET"},
            ray=WAYS[way],
        )
        salted(config, server.options)
        (folder / "job.yaml").write_text(config.to_yaml())
        environment = mine | {
            "PYTHONPATH": str(ROOT),
            "ANONLIB_SECRET": SECRET,
            "AWS_ACCESS_KEY_ID": server.root.key_id,
            "AWS_SECRET_ACCESS_KEY": server.root.secret,
        }
        script = [str(ROOT / "jobs" / "anonymize.py")] if way != "cluster" else [__file__, "submit"]
        command = inside.command(sys.executable, *script, str(folder / "job.yaml"))
        with inside.watched() as seen:
            ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        with inside.watched() as planted:
            subprocess.run(inside.command("timeout", "3", sys.executable, "-c", _VIOLATOR), env=mine)
        download(open_storage(f"s3://{bucket}/release", server.options), folder / "release")
        return {
            "code": ended.returncode,
            "said": ended.stdout[-2000:] + ended.stderr[-2000:],
            "endpoint": [SERVER, int(server.endpoint.rpartition(":")[2])],
            "seen": [[*vars(where).values(), count] for where, count in sorted(seen.items())],
            "planted": [[*vars(where).values(), count] for where, count in sorted(planted.items())],
        }


def submit(path: str) -> int:
    """A cluster of two nodes in this namespace, and the job submitted to it."""
    from tests.support.cluster import SCRIPT, cluster

    with cluster(nodes=2, **os.environ) as made:
        ended = made.command("job", "submit", "--", sys.executable, str(SCRIPT), path)
        print(ended.stdout[-2000:])
        return ended.returncode


def observed(way: str, source: Path, folder: Path) -> dict[str, Any]:
    """`observe` in a namespace of its own."""
    folder.mkdir(parents=True)
    command = [*new_namespace(), sys.executable, __file__, "observe", way, str(source), str(folder)]
    ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def destinations(rows: list[list[Any]]) -> dict[Destination, int]:
    return {Destination(*where): count for *where, count in rows}


def of_the_head(where: Destination) -> bool:
    """The metadata services of clouds: an address of the machine itself, and a name."""
    return where == Destination(LINK, "tcp", "169.254.169.254", 80) or where.asked == "metadata.google.internal"


def strangers(seen: dict[Destination, int], endpoint: tuple[str, int]) -> list[Destination]:
    """The destinations that are neither the endpoint (asked for by ARP, and by TCP) nor this machine itself."""
    allowed = {Destination(LINK, "arp", endpoint[0], 0), Destination(LINK, "tcp", *endpoint)}

    def at_home(where: Destination) -> bool:
        own = ip_address(where.address).is_loopback or where.address == CLIENT
        return where.interface == "lo" and own and where.port != 53

    return [where for where in seen if where not in allowed and not at_home(where)]


def judge(way: str, source: Path, expected: Path, folder: Path) -> dict[Destination, int]:
    """What a job sent where; raises AssertionError if any of it went to a stranger or the job did not end well."""
    report = observed(way, source, folder)
    endpoint = (str(report["endpoint"][0]), int(report["endpoint"][1]))
    seen, planted = destinations(report["seen"]), destinations(report["planted"])
    assert report["code"] == 0, report["said"]
    found, wanted = contents(folder / "release"), contents(expected)
    assert found == wanted, sorted(path for path in found.keys() | wanted.keys() if found.get(path) != wanted.get(path))
    assert seen[Destination(LINK, "tcp", *endpoint)] > 100
    assert [one for one in strangers(seen, endpoint) if way != "cluster" or not of_the_head(one)] == []
    caught = {(where.protocol, where.port, where.asked) for where in strangers(planted, endpoint)}
    assert {("udp", 9, ""), ("tcp", 8080, ""), ("udp", 53, "telemetry.example.com")} <= caught, planted
    return seen


@pytest.mark.cluster
@pytest.mark.skipif(refused() is not None, reason=refused() or "")
@pytest.mark.parametrize("way", ["serial", "ray"])
def test_a_job_talks_to_its_bucket_and_to_nobody_else(finished: Run, way: str, tmp_path: Path) -> None:
    seen = judge(way, finished.input, finished.output, tmp_path / "here")
    if way == "ray":
        assert any(where.interface == "lo" for where in seen), "Ray talks to itself, and the witness must hear it"


def main(way: str) -> None:
    from tests.support import photos
    from tests.support.runs import run_job

    with tempfile.TemporaryDirectory(prefix="anonlib-network-") as name:
        shots = photos.people(8, 2)
        for shard in range(4):
            content = []
            for number, (person, pixels) in list(enumerate(shots))[shard::4]:
                content += photos.members(f"holiday-{number:03d}", pixels, {"person": person, "caption": "a photo"})
            photos.tar(Path(name) / "input" / f"{shard:05d}.tar", content)
        clean = run_job(Path(name) / "input", Path(name) / "clean")
        seen = judge(way, clean.input, clean.output, Path(name) / "here")
    for where, count in sorted(seen.items()):
        if where.interface != "lo":
            print(f"{count:8,} packets by {where.protocol} to {where.address} {where.port or ''} {where.asked}")
    own = {where.port for where in seen if where.interface == "lo"}
    inner = sum(count for where, count in seen.items() if where.interface == "lo")
    print(f"{inner:8,} packets to itself, on {len(own)} ports")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["observe", way, source, folder]:
            print(json.dumps(observe(way, Path(source), Path(folder))))
        case ["submit", path]:
            raise SystemExit(submit(path))
        case [way]:
            main(way)
