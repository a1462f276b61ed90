"""infra/kuberay is what Kubernetes takes, pods ask for Ray's token, and none sends or is sent more than it must."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from anonlib import __version__
from tests.infra.test_infra_docker import locked

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "infra" / "kuberay"
CONFIDENTIAL = re.compile(r"SECRET|TOKEN|PASSWORD|CREDENTIAL|ACCESS_KEY")
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
RAY_PORTS = {
    "object-manager-port": "8076",
    "node-manager-port": "8077",
    "runtime-env-agent-port": "8078",
    "dashboard-agent-grpc-port": "8079",
    "metrics-export-port": "8080",
    "dashboard-agent-listen-port": "52365",
    "min-worker-port": "10002",
    "max-worker-port": "10999",
}
"""Ray's options; without them Ray takes any free port."""
PRIVATE = {"10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"}
"""Addresses of pods, API servers, machines and metadata services."""
CONFINED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}

Manifest = dict[str, Any]


def manifests() -> list[Manifest]:
    """Everything that kustomize would share, but for the job file."""
    files = [path for path in sorted(KUBERAY.glob("*.yaml")) if path.name not in ("kustomization.yaml", "job.yaml")]
    return [document for path in files for document in yaml.safe_load_all(path.read_text())]


def spec_of(manifest: Manifest) -> Manifest | None:
    """The RayJob's spec in a manifest, if it has one."""
    if manifest["kind"] == "RayJob":
        return dict(manifest["spec"])
    return dict(manifest["spec"]["jobTemplate"]) if manifest["kind"] == "RayCronJob" else None


def pods(everything: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """(group, template) of every pod that the manifests would start."""
    for manifest in everything:
        if spec := spec_of(manifest):
            cluster = spec["rayClusterSpec"]
            yield "submitter", spec["submitterPodTemplate"]
            yield "head", cluster["headGroupSpec"]["template"]
            yield from ((group["groupName"], group["template"]) for group in cluster["workerGroupSpecs"])
        elif manifest["kind"] == "CronJob":
            yield "scheduler", manifest["spec"]["jobTemplate"]["spec"]["template"]


def test_both_kinds_of_job_run_the_same_ray_which_asks_for_a_token_and_ends() -> None:
    spec, other = (spec for manifest in manifests() if (spec := spec_of(manifest)))
    assert spec == other, "RayJob and RayCronJob"
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"} and cluster["rayVersion"] == locked(ROOT)["ray"]
    assert spec["shutdownAfterJobFinishes"] and spec["activeDeadlineSeconds"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert RAY_PORTS.items() <= group["rayStartParams"].items(), "not those that pods may reach of each other"


def test_a_pod_may_do_and_knows_no_more_than_it_must() -> None:
    everything = manifests()
    create = [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}]
    assert all(manifest["rules"] == create for manifest in everything if manifest["kind"] == "Role")
    for group, template in pods(everything):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["automountServiceAccountToken"] is (group == "scheduler")
        assert all({"emptyDir", "configMap"} & set(volume) for volume in spec["volumes"]), "it outlives the pod"
        for container in spec["containers"]:
            assert container["securityContext"] == CONFINED
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]) and container["resources"]["limits"][
                "memory"
            ]
            image, kind = container["image"], "gpu" if group == "gpu" else "cpu"
            assert DIGEST.search(image) or image == f"registry.example.com/anonlib:{__version__}-{kind}"
            environment = {row["name"]: row for row in container.get("env", ())}
            for name, row in environment.items():
                assert not CONFIDENTIAL.search(name) or set(row) == {"name", "valueFrom"}, "a secret in a manifest"
            assert group == "scheduler" or environment["RAY_USAGE_STATS_ENABLED"]["value"] == "0"


def test_what_no_rule_of_the_network_names_is_closed_and_every_pod_has_a_rule() -> None:
    everything = manifests()
    policies = [manifest["spec"] for manifest in everything if manifest["kind"] == "NetworkPolicy"]
    assert all(sorted(policy["policyTypes"]) == ["Egress", "Ingress"] for policy in policies)
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in policies
    rules = [rule for policy in policies for side in ("ingress", "egress") for rule in policy.get(side, ())]
    assert all(rule["ports"] and rule.get("from", rule.get("to")) for rule in rules), "a rule for everybody"
    blocks = [(peer["ipBlock"], rule["ports"]) for rule in rules for peer in rule.get("to", ()) if "ipBlock" in peer]
    for block, ports in blocks:
        to_the_world = set(block.get("except", ())) == PRIVATE and [port["port"] for port in ports] == [443]
        assert block["cidr"] in PRIVATE or to_the_world
    selected = {next(iter(policy["podSelector"].get("matchLabels", {"": ""}).values())) for policy in policies}
    for _, template in pods(everything):
        assert template["metadata"]["labels"]["app.kubernetes.io/component"] in selected


def test_kubernetes_takes_its_own_kinds_and_every_pod() -> None:
    everything = manifests()
    templates = [{"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
                 for _, template in pods(everything)]  # fmt: skip
    native = [manifest for manifest in everything if not manifest["apiVersion"].startswith("ray.io/")]
    for manifest in (*native, *templates):
        kubernetes_validate.validate(manifest, "1.35", strict=True)
