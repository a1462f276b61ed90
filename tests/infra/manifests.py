"""What is wrong with infra/kuberay, as far as that can be known without a cluster.

Three nets: Kubernetes' own schemas for its own kinds and for every pod; the fields that we use of KubeRay's kinds; and
what this project asks of its pods. KubeRay's whole schemas are held against the files where they are at hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

KUBERNETES = "1.35"
KUBERAY = "1.6, custom resource definitions of 2026-08-19"
"""What FIELDS was last held against."""
SPEC = {
    "activeDeadlineSeconds": int,
    "backoffLimit": int,
    "entrypoint": str,
    "rayClusterSpec": dict,
    "shutdownAfterJobFinishes": bool,
    "submissionMode": str,
    "submitterPodTemplate": dict,
    "ttlSecondsAfterFinished": int,
}
FIELDS: dict[str, dict[str, type]] = {
    "RayJob": SPEC,
    "RayCronJob": {"schedule": str, "timeZone": str, "suspend": bool, "jobTemplate": dict},
    "cluster": {"rayVersion": str, "authOptions": dict, "headGroupSpec": dict, "workerGroupSpecs": list},
    "head": {"rayStartParams": dict, "template": dict},
    "worker": {
        "groupName": str,
        "replicas": int,
        "minReplicas": int,
        "maxReplicas": int,
        "rayStartParams": dict,
        "template": dict,
    },
}
CONFIDENTIAL = re.compile(r"SECRET|TOKEN|PASSWORD|CREDENTIAL|ACCESS_KEY")
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
METRICS = "8080"
"""The port that Ray exports at, and all that Prometheus may reach."""
JOB_SERVER, HTTPS = 8265, 443
GCS = 6379
PORTS = (
    "object-manager-port",
    "node-manager-port",
    "runtime-env-agent-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "dashboard-agent-listen-port",
)
"""Ray's options whose ports a network policy names; without them Ray takes any free port. The workers' are a range."""
PRIVATE = {"10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"}
"""Addresses of pods, API servers, machines and metadata services."""
OURS = "registry.example.com/anonlib:"
BY_ENV, BY_MANAGER = {"env": "ANONLIB_SECRET"}, {"manager": "anonlib-job"}


def problems(folder: Path, ray: str, version: str) -> list[str]:
    """Sentences; none if the manifests in `folder` are sound and made for this Ray and this anonlib."""
    try:
        documents = {path.name: list(yaml.safe_load_all(path.read_text())) for path in sorted(folder.glob("*.yaml"))}
    except yaml.YAMLError as error:
        return [f"not YAML: {' '.join(str(error).split())}"]
    kustomization, job = documents.pop("kustomization.yaml")[0], documents.pop("job.yaml")[0]
    everything = [one for some in documents.values() for one in some]
    found = [*_own_kinds(everything), *_rayjobs(everything, ray), *_accounts(everything), *_network(everything)]
    for pod in pods(everything):
        found += [f"{pod[0]}: {sentence}" for sentence in _pod(*pod[1:], version, job.get("secret") == BY_ENV)]
    return found + list(_maps(folder, kustomization, everything, job))


def spec_of(document: dict[str, Any]) -> dict[str, Any] | None:
    """The RayJob's spec in a document, if it has one."""
    if document["kind"] == "RayJob":
        return dict(document["spec"])
    return dict(document["spec"]["jobTemplate"]) if document["kind"] == "RayCronJob" else None


def pods(documents: list[dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(where, group, template) of every pod that the documents would start."""
    for one in documents:
        if spec := spec_of(one):
            cluster, kind = spec["rayClusterSpec"], one["kind"]
            yield f"{kind} submitter", "submitter", spec["submitterPodTemplate"]
            yield f"{kind} head", "head", cluster["headGroupSpec"]["template"]
            for group in cluster["workerGroupSpecs"]:
                yield f"{kind} {group['groupName']}", group["groupName"], group["template"]
        elif one["kind"] == "CronJob":
            yield "CronJob", "scheduler", one["spec"]["jobTemplate"]["spec"]["template"]


def _own_kinds(documents: list[dict[str, Any]]) -> Iterator[str]:
    for one in documents:
        if not one["apiVersion"].startswith("ray.io/"):
            yield from _valid(one, one["kind"])


def _valid(document: dict[str, Any], what: str) -> Iterator[str]:
    if sentence := _refusal(json.dumps(document)):
        yield f"{what}: {sentence}"


@lru_cache
def _refusal(document: str) -> str:
    """Why Kubernetes would not take a document; empty if it would."""
    try:
        kubernetes_validate.validate(json.loads(document), KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return f"Kubernetes has no {error.kind}"
    return ""


def _rayjobs(documents: list[dict[str, Any]], ray: str) -> Iterator[str]:
    """The fields in use, and that all manifests run the same thing."""
    specs = []
    for one in documents:
        if (spec := spec_of(one)) is None:
            continue
        specs.append(spec)
        kind, cluster = one["kind"], spec["rayClusterSpec"]
        yield from _fields(one["spec"], FIELDS[kind], kind)
        yield from _fields(spec, SPEC, f"{kind} job")
        yield from _fields(cluster, FIELDS["cluster"], f"{kind} cluster")
        yield from _fields(cluster["headGroupSpec"], FIELDS["head"], f"{kind} head")
        if cluster.get("authOptions") != {"mode": "token"}:
            yield f"{kind}: everyone who reaches a port of Ray runs code, because it asks for no token"
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            if group["rayStartParams"].get("metrics-export-port") != METRICS:
                yield f"{kind}: Ray exports its metrics at another port than {METRICS}"
        for group in cluster["workerGroupSpecs"]:
            yield from _fields(group, FIELDS["worker"], f"{kind} worker")
            if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
                yield f"{kind} {group['groupName']}: replicas are not between their bounds"
        if cluster.get("rayVersion") != ray:
            yield f"{kind}: rayVersion is {cluster.get('rayVersion')}, the image has {ray}"
        if spec.get("entrypoint") != "python /opt/anonlib/jobs/anonymize.py /etc/anonlib/job.yaml":
            yield f"{kind}: the entrypoint is not the job script with the job file"
        if not spec.get("shutdownAfterJobFinishes") or "activeDeadlineSeconds" not in spec:
            yield f"{kind}: the cluster may outlive its job"
    if len(specs) != 2 or specs[0] != specs[1]:
        yield "RayJob and RayCronJob do not run the same"
    if any(one["spec"].get("timeZone") is None for one in documents if one["kind"].endswith("CronJob")):
        yield "a schedule has no time zone"


def _fields(given: dict[str, Any], known: dict[str, type], what: str) -> Iterator[str]:
    for name, value in given.items():
        if name not in known:
            yield f"{what}: {name} is not a field that was held against KubeRay {KUBERAY}"
        elif not isinstance(value, known[name]):
            yield f"{what}: {name} is not of type {known[name].__name__}"


def _pod(group: str, template: dict[str, Any], version: str, by_env: bool) -> Iterator[str]:
    yield from _valid({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}, "")
    spec = template["spec"]
    if not spec.get("securityContext", {}).get("runAsNonRoot"):
        yield "may run as root"
    if spec.get("automountServiceAccountToken") is not (group == "scheduler"):
        yield "its token for Kubernetes is mounted needlessly, or not at all"
    yield from (
        f"volume {one['name']} outlives the pod" for one in spec["volumes"] if not {"emptyDir", "configMap"} & set(one)
    )
    if group in ("cpu", "gpu"):
        tolerated = {one["key"] for one in spec.get("tolerations", ())}
        wanted = {"spot"} | ({"nvidia.com/gpu"} if group == "gpu" else set())
        yield from (f"does not tolerate {one}" for one in sorted(wanted - tolerated))
    if group in ("head", "cpu", "gpu"):
        yield from _watched(template)
    for container in spec["containers"]:
        yield from _container(group, container, version, by_env)


def _watched(template: dict[str, Any]) -> Iterator[str]:
    """Prometheus finds the metrics of a Ray pod, and its workers' lines are in the pod's log."""
    container = template["spec"]["containers"][0]
    port = {"prometheus.io/scrape": "true", "prometheus.io/port": METRICS, "prometheus.io/path": "/metrics"}
    if template["metadata"].get("annotations") != port:
        yield "Prometheus is not told where its metrics are"
    if {"name": "metrics", "containerPort": int(METRICS)} not in container.get("ports", ()):
        yield f"its port {METRICS} is not declared"
    if {"name": "RAY_LOG_TO_STDERR", "value": "1"} not in container["env"]:
        yield "its workers' lines stay in files that vanish with it"


def _container(group: str, container: dict[str, Any], version: str, by_env: bool) -> Iterator[str]:
    wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    if container.get("securityContext") != wanted:
        yield "its container may do more than it must"
    resources = container.get("resources", {})
    if not {"cpu", "memory"} <= set(resources.get("requests", ())) or "memory" not in resources.get("limits", ()):
        yield "its container has no bounds"
    if ("nvidia.com/gpu" in resources.get("limits", ())) != (group == "gpu"):
        yield "a GPU where there should be none, or none where there should be"
    image, kind = str(container["image"]), "gpu" if group == "gpu" else "cpu"
    if not DIGEST.search(image) and image != f"{OURS}{version}-{kind}":
        yield f"{image} is neither pinned by digest nor this version's image"
    environment = {one["name"]: one for one in container.get("env", ())}
    for name, one in environment.items():
        if CONFIDENTIAL.search(name) and set(one) != {"name", "valueFrom"}:
            yield f"{name} stands in the manifest"
    if group != "scheduler" and environment.get("RAY_USAGE_STATS_ENABLED", {}).get("value") != "0":
        yield "Ray would report its use"
    knows = "ANONLIB_SECRET" in environment
    if knows != (by_env and group in ("head", "cpu", "gpu")):
        yield "the job's secret is where it is not needed, or not where it is"


def _accounts(documents: list[dict[str, Any]]) -> Iterator[str]:
    made = {one["metadata"]["name"] for one in documents if one["kind"] == "ServiceAccount"}
    used = {template["spec"].get("serviceAccountName") for _, _, template in pods(documents)}
    yield from (f"the service account {one} is made nowhere" for one in sorted(map(str, used - made)))
    for one in documents:
        if one["kind"] == "Role" and one["rules"] != [
            {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}
        ]:
            yield "the scheduler may do more than create a RayJob"


def _network(documents: list[dict[str, Any]]) -> Iterator[str]:
    """A pod sends and is sent only what a rule names: by namespace and label, or by address, and by port."""
    policies = [one["spec"] for one in documents if one["kind"] == "NetworkPolicy"]
    if not any(not one["podSelector"] and not one.get("ingress") and not one.get("egress") for one in policies):
        yield "what no rule names is let through"
    for one in policies:
        if sorted(one.get("policyTypes", ())) != ["Egress", "Ingress"]:
            yield "a network policy leaves one direction open"
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for rule in one.get(direction, ()):
                yield from _rule(rule, side)
    selected = [one["podSelector"]["matchLabels"].items() for one in policies if one["podSelector"]]
    for where, _, template in pods(documents):
        if not any(labels <= template["metadata"].get("labels", {}).items() for labels in selected):
            yield f"{where}: no network policy lets it do its work"
    yield from _ray_ports(documents, policies)


def _rule(rule: dict[str, Any], side: str) -> Iterator[str]:
    """What is wrong with one rule; `side` says under which key its peers stand."""
    numbers = {one.get("port") for one in rule.get("ports", ())}
    if not numbers or not all(isinstance(one, int) for one in numbers):
        yield "a rule of the network policy names no ports"
    if not rule.get(side):
        yield "a rule of the network policy names no peer"
    for peer in rule.get(side, ()):
        if "ipBlock" in peer:
            block = peer["ipBlock"]
            public = block["cidr"] == "0.0.0.0/0" and set(block.get("except", ())) == PRIVATE and numbers == {HTTPS}
            api_server = block["cidr"] in PRIVATE and numbers <= {HTTPS, 6443}
            if side == "from" or not (public or api_server):
                yield f"a pod may send to {block['cidr']} more than it needs"
            continue
        if not peer.get("podSelector", {}).get("matchLabels"):
            yield "a rule of the network policy names a whole namespace"
        if "namespaceSelector" in peer:
            if set(peer["namespaceSelector"].get("matchLabels", ())) != {"kubernetes.io/metadata.name"}:
                yield "a pod of any namespace passes for the one that a rule means"
            if numbers not in ({JOB_SERVER}, {int(METRICS)}, {53}):
                yield "a pod of another namespace may do more than it needs"
            if "prometheus" in str(peer) and numbers != {int(METRICS)}:
                yield "who may read the metrics may do more"


def _ray_ports(documents: list[dict[str, Any]], policies: list[dict[str, Any]]) -> Iterator[str]:
    """The ports of Ray's options are those that Ray's pods may reach of each other."""
    rules = [
        rule["ports"]
        for one in policies
        for rule in one.get("ingress", ())
        if rule.get("ports") and [peer.get("podSelector") for peer in rule.get("from", ())] == [one["podSelector"]]
    ]
    reached = {number for one in rules for port in one for number in range(port["port"], _end(port) + 1)}
    for spec in filter(None, map(spec_of, documents)):
        cluster = spec["rayClusterSpec"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            given = group["rayStartParams"]
            fixed = {int(given.get(name, 0)) for name in PORTS} | {GCS, JOB_SERVER}
            fixed |= set(range(int(given.get("min-worker-port", 0)), int(given.get("max-worker-port", 0)) + 1))
            if fixed != reached:
                yield "Ray's ports are not those that its pods may reach of each other"


def _end(port: dict[str, Any]) -> int:
    return int(port.get("endPort", port["port"]))


def _maps(folder: Path, kustomization: dict[str, Any], documents: list[dict[str, Any]], job: Any) -> Iterator[str]:
    """ConfigMaps that pods mount are made of files that exist, and the job's secret is the one that pods get."""
    made = {one["name"]: one["files"] for one in kustomization["configMapGenerator"]}
    files = [*kustomization["resources"], *(file for some in made.values() for file in some)]
    yield from (
        f"kustomization.yaml names {file}, which does not exist" for file in files if not (folder / file).is_file()
    )
    used = {
        volume["configMap"]["name"]
        for _, _, template in pods(documents)
        for volume in template["spec"]["volumes"]
        if "configMap" in volume
    }
    yield from (f"the ConfigMap {one} is made nowhere" for one in sorted(used - set(made)))
    if job.get("secret") not in (BY_ENV, BY_MANAGER):
        yield "job.yaml does not take its secret from Terraform's, nor from ANONLIB_SECRET"
