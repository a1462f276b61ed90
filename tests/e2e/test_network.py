"""No packet of a job leaves its machine for anybody but the configured bucket: counted by the kernel, not believed.

The job and its S3 server run in a network namespace with a loopback and one link, on which everything else would leave:
names asked of a DNS server, telemetry, a licence check. A process that does such things on purpose is counted there,
too. It takes root or user namespaces.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from anonlib.storage import open_storage
from tests.support.namespaces import refused, unshared
from tests.support.runs import SECRET, Run, contents, job, salted
from tests.support.s3server import REGION, download, running

ROOT = Path(__file__).parents[2]
# RFC 5737: 192.0.2.0/24 belongs to nobody. The kernel's own search for IPv6 neighbours is no program's doing.
SETUP = r"""
ip link set lo up
ip link add leaves type veth peer name nowhere
for link in leaves nowhere; do echo 1 > /proc/sys/net/ipv6/conf/$link/disable_ipv6; ip link set $link up; done
ip address add 10.77.0.2/24 dev leaves
ip route add default dev leaves
printf "nameserver 192.0.2.53\noptions timeout:1 attempts:1\n" > {folder}/resolv.conf
mount --bind {folder}/resolv.conf /etc/resolv.conf
"""
VIOLATOR = """
import socket, urllib.request
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"a template", ("192.0.2.1", 9))
for attempt in (lambda: urllib.request.urlopen("http://192.0.2.2:8080/usage", timeout=0.2),
                lambda: socket.getaddrinfo("telemetry.example.com", 443)):
    try:
        attempt()
    except OSError:
        pass
"""


def left() -> tuple[int, list[str]]:
    """How many packets have left on the link, and the addresses that they were for."""
    asked = (["-s", "-j", "link", "show", "leaves"], ["-j", "neigh", "show", "nud", "all", "dev", "leaves"])
    link, sought = (json.loads(subprocess.run(["ip", *of], capture_output=True, check=True).stdout) for of in asked)
    return int(link[0]["stats64"]["tx"]["packets"]), sorted(neighbour["dst"] for neighbour in sought)


def observe(source: Path, folder: Path) -> dict[str, Any]:
    """Run in fresh namespaces: what a job from bucket to bucket came to, and what had left before and after it."""
    subprocess.run(["sh", "-ec", SETUP.format(folder=folder)], check=True)
    # What a shell at hand happens to set must not make the job quieter than it is; how it computes may stay.
    kept = ("PATH", "HOME", "LANG", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE")
    mine = {name: os.environ[name] for name in kept if name in os.environ}
    with running(folder) as server, server.acting_as():
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
        before = left()
        command = [sys.executable, str(ROOT / "jobs" / "anonymize.py"), str(folder / "job.yaml")]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        sent = left()
        subprocess.run(["timeout", "60", sys.executable, "-c", VIOLATOR], env=mine)
        report = {"before": before, "sent": sent, "planted": left()}
        download(open_storage(f"s3://{bucket}/release", server.options), folder / "release")
    return report | {"code": ended.returncode, "said": ended.stdout[-2000:] + ended.stderr[-2000:]}


@pytest.mark.cluster
@pytest.mark.skipif(refused() is not None, reason=refused() or "")
def test_a_job_on_ray_talks_to_its_bucket_and_to_nobody_else(one_shard: Run, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    command = [*unshared("--net", "--mount"), sys.executable, __file__, str(one_shard.input), str(folder)]
    ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    report = json.loads(ended.stdout.splitlines()[-1])
    assert report["code"] == 0, report["said"]
    assert contents(folder / "release") == contents(one_shard.output)
    assert report["before"] == report["sent"] == [0, []]
    assert report["planted"][0] >= 3 and report["planted"][1] == ["192.0.2.1", "192.0.2.2", "192.0.2.53"]


if __name__ == "__main__":
    print(json.dumps(observe(Path(sys.argv[1]), Path(sys.argv[2]))))
