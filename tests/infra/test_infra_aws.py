"""infra/aws/cluster.yaml is what Ray takes, on machines that hold no key, keep no disk and may vanish."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from anonlib import __version__

ROOT = Path(__file__).parents[2]
PROFILE = re.compile(r"arn:aws:iam::\d{12}:instance-profile/(\S+)")
KEYS = re.compile(r"AKIA[0-9A-Z]{16}|aws_(?:access|secret|session)|ssh_private_key|ANONLIB_SECRET", re.IGNORECASE)
OURS = "registry.example.com/anonlib:"
GROUP = re.compile(r"sg-[0-9a-f]{17}")
TOKEN = "/home/anonlib/.ray/auth_token"
PORT = re.compile(r"--([\w-]+)-port=(\d+)")
OUTSIDE = {"dashboard"}
"""Ports of the head that only the head itself may reach."""


def problems(root: Path) -> list[str]:
    """Sentences about infra/aws of the repository in `root`; none if it is sound."""
    text = (root / "infra" / "aws" / "cluster.yaml").read_text()
    try:
        given = yaml.safe_load(text)
        cluster = prepare_config(given)
        validate_config(cluster)
    except (yaml.YAMLError, jsonschema.ValidationError, ValueError) as error:
        return [f"Ray refuses it: {' '.join(str(error).split())[:200]}"]
    terraform = "\n".join(path.read_text() for path in (root / "infra" / "terraform").glob("*.tf"))
    machines = given["available_node_types"].items()
    found = [f"{kind}: {problem}" for kind, type_ in machines for problem in _machine(kind, type_, terraform)]
    return [*found, *_docker(given["docker"]), *_whole(root, text, given, terraform)]


def _machine(kind: str, given: dict[str, Any], terraform: str) -> Iterator[str]:
    node = given["node_config"]
    spot = node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    if spot != (kind != "head"):
        yield "the head must stay and workers may vanish, so workers alone are spot"
    if len(groups := node.get("SecurityGroupIds", ())) != 1 or not GROUP.fullmatch(groups[0]):
        yield "it has no security group, so Ray makes one that lets everyone in by ssh"
    if node.get("MetadataOptions") != {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}:
        yield "anything that can be made to ask a URL gets the machine's role"
    disks = [disk["Ebs"] for disk in node["BlockDeviceMappings"]]
    if not all(disk.get("Encrypted") and disk.get("DeleteOnTermination") for disk in disks):
        yield "a disk is in clear, or stays"
    profile = PROFILE.fullmatch(node.get("IamInstanceProfile", {}).get("Arn", ""))
    wanted = "head" if kind == "head" else "worker"
    if profile is None or profile[1] != f"anonlib-{wanted}" or f'"${{var.name}}-{wanted}"' not in terraform:
        yield f"its instance profile is not the one that Terraform makes for a {wanted}"


def _docker(docker: dict[str, Any]) -> Iterator[str]:
    options, images = set(docker["run_options"]), {docker["head_image"], docker["worker_image"]}
    if images != {f"{OURS}{__version__}-cpu", f"{OURS}{__version__}-gpu"}:
        yield f"the images are not this version's: {sorted(images)}"
    if not {"--env=RAY_AUTH_MODE=token", f"--env=RAY_AUTH_TOKEN_PATH={TOKEN}"} <= options:
        yield "everyone who reaches a port of Ray runs code, because it asks for no token"
    if not {"--security-opt=no-new-privileges", "--env=RAY_USAGE_STATS_ENABLED=0"} <= options:
        yield "the container may gain privileges, or Ray report its use"


def _whole(root: Path, text: str, given: dict[str, Any], terraform: str) -> Iterator[str]:
    yield from (f"{line.strip()} holds a key" for line in text.splitlines() if KEYS.search(line))
    mounts = given["file_mounts"]
    if mounts.get(TOKEN) != "~/.ray/auth_token":
        yield "the machines get no token for Ray"
    yield from _ports(given, terraform)
    if f'cluster     = "{given["cluster_name"]}"' not in terraform:
        yield "the head may not end workers of a cluster of this name"
    if f"--env=AWS_DEFAULT_REGION={given['provider']['region']}" not in given["docker"]["run_options"]:
        yield "machines do not ask for the job's secret where it lies"
    if "--dashboard-host=127.0.0.1" not in " ".join(given["head_start_ray_commands"]):
        yield "whoever reaches the head's dashboard runs code on it"
    if given["provider"].get("cache_stopped_nodes") is not False:
        yield "machines are stopped and not ended, with what is on their disks"


def _ports(given: dict[str, Any], terraform: str) -> Iterator[str]:
    """Ray's ports are fixed, and they are what the security group lets machines reach of each other."""
    block = re.search(r"cluster_ports = \{(.*?)\}", terraform, re.DOTALL)
    pairs = re.findall(r"\[(\d+), (\d+)\]", block[1] if block else "")
    opened = {number for first, last in pairs for number in range(int(first), int(last) + 1)}
    for kind in ("head", "worker"):
        command = given[f"{kind}_start_ray_commands"][-1]
        ports = {name: int(number) for name, number in PORT.findall(command) if name not in OUTSIDE}
        used = {22, 6379, *range(ports.pop("min-worker", 0), ports.pop("max-worker", 0) + 1), *ports.values()}
        if used != opened or len(ports) != 6 or not re.search(r"(--port=|--address=\$RAY_HEAD_IP:)6379", command):
            yield f"the {kind}'s ports are not those of the security group"


def test_ray_takes_the_cluster_file() -> None:
    assert problems(ROOT) == []
