"""infra/aws/cluster.yaml is what Ray takes, on machines that hold no key, keep no disk and may vanish."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from anonlib import __version__

ROOT = Path(__file__).parents[2]
KEYS = re.compile(r"AKIA[0-9A-Z]{16}|aws_(?:access|secret|session)|ssh_private_key|ANONLIB_SECRET", re.IGNORECASE)
TOKEN = "/home/anonlib/.ray/auth_token"
TEXT = (ROOT / "infra" / "aws" / "cluster.yaml").read_text()
CLUSTER: dict[str, Any] = yaml.safe_load(TEXT)
TERRAFORM = "\n".join(path.read_text() for path in (ROOT / "infra" / "terraform").glob("*.tf"))


def test_ray_takes_the_cluster_file_and_it_holds_no_key() -> None:
    validate_config(prepare_config(yaml.safe_load(TEXT)))
    assert not KEYS.search(TEXT)


@pytest.mark.parametrize("kind", CLUSTER["available_node_types"])
def test_a_machine_has_our_group_and_role_and_keeps_nothing(kind: str) -> None:
    node, role = CLUSTER["available_node_types"][kind]["node_config"], "head" if kind == "head" else "worker"
    spot = node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    assert spot == (role == "worker"), "the head must stay and workers may vanish"
    (group,) = node["SecurityGroupIds"]  # else Ray makes one that lets everyone in by ssh
    assert re.fullmatch(r"sg-[0-9a-f]{17}", group)
    assert node["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    assert all(disk["Ebs"]["Encrypted"] and disk["Ebs"]["DeleteOnTermination"] for disk in node["BlockDeviceMappings"])
    assert re.fullmatch(rf"arn:aws:iam::\d{{12}}:instance-profile/anonlib-{role}", node["IamInstanceProfile"]["Arn"])
    assert f'"${{var.name}}-{role}"' in TERRAFORM


def test_containers_are_this_version_gain_no_privilege_and_ask_for_a_token() -> None:
    docker = CLUSTER["docker"]
    images = {f"registry.example.com/anonlib:{__version__}-{kind}" for kind in ("cpu", "gpu")}
    assert {docker["head_image"], docker["worker_image"]} == images
    region = CLUSTER["provider"]["region"]
    assert set(docker["run_options"]) >= {
        "--env=RAY_AUTH_MODE=token",
        f"--env=RAY_AUTH_TOKEN_PATH={TOKEN}",
        "--security-opt=no-new-privileges",
        "--env=RAY_USAGE_STATS_ENABLED=0",
        f"--env=AWS_DEFAULT_REGION={region}",
    }
    assert CLUSTER["file_mounts"][TOKEN] == "~/.ray/auth_token"
