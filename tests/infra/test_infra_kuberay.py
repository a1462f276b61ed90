"""infra/kuberay is what Kubernetes takes, pods ask for Ray's token, and none sends or is sent more than it must."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from anonlib import __version__
from tests.infra.test_infra_docker import locked, script

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
PRIVATE = "10.0.0.0/8 100.64.0.0/10 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16"
"""Addresses of pods, API servers, machines and metadata services."""
BETWEEN_RAYS = "6379 8265 8076-8080 52365 10002-10999"
FLOWS = {
    f"ray <- ray: {BETWEEN_RAYS}",
    "ray <- submitter: 8265",
    "ray <- ray-system/kuberay-operator: 8265",
    "ray <- monitoring/prometheus: 8080",
    f"ray -> ray: {BETWEEN_RAYS}",
    "ray -> kube-system/kube-dns: 53 53",
    f"ray -> 0.0.0.0/0 but {PRIVATE}: 443",
    "submitter -> ray: 8265",
    "submitter -> kube-system/kube-dns: 53 53",
    *(f"scheduler -> {private}: 443 6443" for private in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
}
"""All that pods may send (->) and be sent (<-): a peer, by namespace where it is another, and its ports."""
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


def problems() -> list[str]:
    """Sentences about who may reach whom, and what a pod may do and knows; none if the manifests are sound."""
    everything = manifests()
    found = [*_rays(everything), *_network(everything)]
    create = [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}]
    if any(manifest["rules"] != create for manifest in everything if manifest["kind"] == "Role"):
        found.append("the scheduler may do more than create a RayJob")
    for group, template in pods(everything):
        spec = template["spec"]
        if not spec.get("securityContext", {}).get("runAsNonRoot"):
            found.append("may run as root")
        if spec.get("automountServiceAccountToken") is not (group == "scheduler"):
            found.append("its token for Kubernetes is mounted needlessly, or not at all")
        if not all({"emptyDir", "configMap"} & set(volume) for volume in spec["volumes"]):
            found.append("a volume outlives the pod")
        for container in spec["containers"]:
            found += _container(group, container)
    if yaml.safe_load((KUBERAY / "job.yaml").read_text()).get("secret") != {"manager": "anonlib-job"}:
        found.append("job.yaml does not take its secret from Terraform's")
    return found


def _rays(everything: list[Manifest]) -> Iterator[str]:
    specs = [spec for manifest in everything if (spec := spec_of(manifest))]
    if len(specs) != 2 or specs[0] != specs[1]:
        yield "RayJob and RayCronJob do not run the same"
    for spec in specs:
        cluster = spec["rayClusterSpec"]
        if cluster.get("authOptions") != {"mode": "token"}:
            yield "everyone who reaches a port of Ray runs code, because it asks for no token"
        if cluster.get("rayVersion") != locked(ROOT)["ray"]:
            yield "rayVersion is not the image's"
        if not spec.get("shutdownAfterJobFinishes") or "activeDeadlineSeconds" not in spec:
            yield "the cluster may outlive its job"
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            if not RAY_PORTS.items() <= group["rayStartParams"].items():
                yield "Ray's ports are not those that its pods may reach of each other"


def _container(group: str, container: Manifest) -> Iterator[str]:
    if container.get("securityContext") != CONFINED:
        yield "its container may do more than it must"
    resources, environment = container.get("resources", {}), {row["name"]: row for row in container.get("env", ())}
    if not {"cpu", "memory"} <= set(resources.get("requests", ())) or "memory" not in resources.get("limits", ()):
        yield "its container has no bounds"
    image, kind = str(container["image"]), "gpu" if group == "gpu" else "cpu"
    if not DIGEST.search(image) and image != f"registry.example.com/anonlib:{__version__}-{kind}":
        yield f"{image} is neither pinned by digest nor this version's image"
    if any(CONFIDENTIAL.search(name) and set(row) != {"name", "valueFrom"} for name, row in environment.items()):
        yield "a secret stands in the manifest"
    if group != "scheduler" and environment.get("RAY_USAGE_STATS_ENABLED", {}).get("value") != "0":
        yield "Ray would report its use"


def _network(everything: list[Manifest]) -> Iterator[str]:
    policies = [manifest["spec"] for manifest in everything if manifest["kind"] == "NetworkPolicy"]
    if any(sorted(policy.get("policyTypes", ())) != ["Egress", "Ingress"] for policy in policies):
        yield "a network policy leaves one direction open"
    closed = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    if closed not in policies:
        yield "what no rule names is let through"
    flows = {flow for policy in policies for flow in _flows(policy)}
    yield from (f"this is let through: {flow}" for flow in flows - FLOWS)
    yield from (f"this is needed: {flow}" for flow in FLOWS - flows)
    selected = {_peer(policy) for policy in policies}
    for _, template in pods(everything):
        if template["metadata"].get("labels", {}).get("app.kubernetes.io/component") not in selected:
            yield "no network policy lets a pod do its work"


def _flows(policy: Manifest) -> Iterator[str]:
    for direction, side, arrow in (("ingress", "from", "<-"), ("egress", "to", "->")):
        for rule in policy.get(direction, ()):
            ports = " ".join(
                f"{port['port']}-{port['endPort']}" if "endPort" in port else str(port["port"])
                for port in rule.get("ports", [{"port": "every port"}])
            )
            for peer in rule.get(side, [{}]):
                yield f"{_peer(policy)} {arrow} {_peer(peer)}: {ports}"


def _peer(given: Manifest) -> str:
    """The pods that a selector means, by the last of its labels, or addresses."""
    if block := given.get("ipBlock"):
        return " but ".join([block["cidr"], *([" ".join(block["except"])] if "except" in block else [])])
    labels = given.get("podSelector", {}).get("matchLabels", {"": "everyone"})
    space = given.get("namespaceSelector", {}).get("matchLabels", {})
    where = "".join(f"{value}/" if name == "kubernetes.io/metadata.name" else "any/" for name, value in space.items())
    return where + next(iter(labels.values()))


def test_the_manifests_are_sound() -> None:
    assert problems() == []


def test_kubernetes_takes_its_own_kinds_and_every_pod() -> None:
    everything = manifests()
    templates = [{"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
                 for _, template in pods(everything)]  # fmt: skip
    native = [manifest for manifest in everything if not manifest["apiVersion"].startswith("ray.io/")]
    for manifest in (*native, *templates):
        kubernetes_validate.validate(manifest, "1.35", strict=True)


def test_the_job_file_is_a_job_for_every_month() -> None:
    job = script(ROOT / "jobs" / "anonymize.py").config_of(KUBERAY / "job.yaml", "2026-11")
    assert (job.input.uri, job.output.uri) == ("s3://photos/2026-11/*.tar", "s3://anonlib-release/2026-11")
    assert job.ray.address is None and job.secret.manager == "anonlib-job"
