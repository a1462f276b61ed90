"""No packet of a job leaves its machine for anybody but the configured bucket: counted by the kernel, not believed.

The job runs in a network namespace whose only neighbour is the S3 server, with a default route on which everything
else would leave and be seen: names asked of a DNS server, telemetry, a licence check. A process that does such things
on purpose is seen by the same witness. It takes root or user namespaces.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


def observe(source: Path, folder: Path) -> dict[str, Any]:
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
            ray={"actors": 1},
        )
        salted(config, server.options)
        (folder / "job.yaml").write_text(config.to_yaml())
        environment = mine | {
            "PYTHONPATH": str(ROOT),
            "ANONLIB_SECRET": SECRET,
            "AWS_ACCESS_KEY_ID": server.root.key_id,
            "AWS_SECRET_ACCESS_KEY": server.root.secret,
        }
        command = inside.command(sys.executable, str(ROOT / "jobs" / "anonymize.py"), str(folder / "job.yaml"))
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


def observed(source: Path, folder: Path) -> dict[str, Any]:
    """`observe` in a namespace of its own."""
    folder.mkdir(parents=True)
    command = [*new_namespace(), sys.executable, __file__, "observe", str(source), str(folder)]
    ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def destinations(rows: list[list[Any]]) -> dict[Destination, int]:
    return {Destination(*where): count for *where, count in rows}


def strangers(seen: dict[Destination, int], endpoint: tuple[str, int]) -> list[Destination]:
    """The destinations that are neither the endpoint (asked for by ARP, and by TCP) nor this machine itself."""
    allowed = {Destination(LINK, "arp", endpoint[0], 0), Destination(LINK, "tcp", *endpoint)}

    def at_home(where: Destination) -> bool:
        own = ip_address(where.address).is_loopback or where.address == CLIENT
        return where.interface == "lo" and own and where.port != 53

    return [where for where in seen if where not in allowed and not at_home(where)]


@pytest.mark.cluster
@pytest.mark.skipif(refused() is not None, reason=refused() or "")
def test_a_job_on_ray_talks_to_its_bucket_and_to_nobody_else(one_shard: Run, tmp_path: Path) -> None:
    report = observed(one_shard.input, tmp_path / "here")
    endpoint = (str(report["endpoint"][0]), int(report["endpoint"][1]))
    seen, planted = destinations(report["seen"]), destinations(report["planted"])
    assert report["code"] == 0, report["said"]
    assert contents(tmp_path / "here" / "release") == contents(one_shard.output)
    assert seen[Destination(LINK, "tcp", *endpoint)] > 100
    assert strangers(seen, endpoint) == []
    caught = {(where.protocol, where.port, where.asked) for where in strangers(planted, endpoint)}
    assert {("udp", 9, ""), ("tcp", 8080, ""), ("udp", 53, "telemetry.example.com")} <= caught, planted
    assert any(where.interface == "lo" for where in seen), "Ray talks to itself, and the witness must hear it"


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["observe", source, folder]:
            print(json.dumps(observe(Path(source), Path(folder))))
