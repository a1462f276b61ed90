"""infra/kuberay is what Kubernetes takes, pods ask for Ray's token, and none sends or is sent more than it must."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from anonlib import __version__
from tests.infra.test_infra_docker import locked

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "infra" / "kuberay"
SCHEMAS = ROOT.parent / "shared" / "schemas"
CONFIDENTIAL = re.compile(r"SECRET|TOKEN|PASSWORD|CREDENTIAL|ACCESS_KEY")
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
METRICS, JOB_SERVER, HTTPS, GCS = 8080, 8265, 443, 6379
PORTS = (
    *("object-manager-port", "node-manager-port", "runtime-env-agent-port", "dashboard-agent-grpc-port"),
    *("metrics-export-port", "dashboard-agent-listen-port"),
)
"""Ray's options whose ports a network policy names; without them Ray takes any free port. The workers' are a range."""
PRIVATE = {"10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"}
"""Addresses of pods, API servers, machines and metadata services."""
CONFINED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}

Manifest = dict[str, Any]


def manifests(folder: Path) -> list[Manifest]:
    """Everything that kustomize would share, but for the job file."""
    files = [path for path in sorted(folder.glob("*.yaml")) if path.name not in ("kustomization.yaml", "job.yaml")]
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


def problems(folder: Path) -> list[str]:
    """Sentences about who may reach whom, and what a pod may do and knows; none if the manifests are sound."""
    everything = manifests(folder)
    job = yaml.safe_load((folder / "job.yaml").read_text())
    found = [*_rays(everything), *_network(everything), *_rights(everything)]
    for group, template in pods(everything):
        spec = template["spec"]
        if not spec.get("securityContext", {}).get("runAsNonRoot"):
            found.append("may run as root")
        if spec.get("automountServiceAccountToken") is not (group == "scheduler"):
            found.append("its token for Kubernetes is mounted needlessly, or not at all")
        if not all({"emptyDir", "configMap"} & set(volume) for volume in spec["volumes"]):
            found.append("a volume outlives the pod")
        by_env = job.get("secret") == {"env": "ANONLIB_SECRET"}
        for container in spec["containers"]:
            found += _container(group, container, by_env)
    if job.get("secret") not in ({"env": "ANONLIB_SECRET"}, {"manager": "anonlib-job"}):
        found.append("job.yaml does not take its secret from Terraform's, nor from ANONLIB_SECRET")
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


def _container(group: str, container: Manifest, by_env: bool) -> Iterator[str]:
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
    if ("ANONLIB_SECRET" in environment) != (by_env and group in ("head", "cpu", "gpu")):
        yield "the job's secret is where it is not needed, or not where it is"


def _rights(everything: list[Manifest]) -> Iterator[str]:
    create = [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}]
    if any(manifest["rules"] != create for manifest in everything if manifest["kind"] == "Role"):
        yield "the scheduler may do more than create a RayJob"


def _network(everything: list[Manifest]) -> Iterator[str]:
    """A pod sends and is sent only what a rule names: by namespace and label, or by address, and by port."""
    policies = [manifest["spec"] for manifest in everything if manifest["kind"] == "NetworkPolicy"]
    if not any(not rule["podSelector"] and not rule.get("ingress") and not rule.get("egress") for rule in policies):
        yield "what no rule names is let through"
    for policy in policies:
        if sorted(policy.get("policyTypes", ())) != ["Egress", "Ingress"]:
            yield "a network policy leaves one direction open"
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for rule in policy.get(direction, ()):
                yield from _rule(rule, side)
    selected = [policy["podSelector"]["matchLabels"].items() for policy in policies if policy["podSelector"]]
    for _, template in pods(everything):
        if not any(labels <= template["metadata"].get("labels", {}).items() for labels in selected):
            yield "no network policy lets a pod do its work"
    yield from _ray_ports(everything, policies)


def _rule(rule: Manifest, side: str) -> Iterator[str]:
    """What is wrong with one rule; `side` says under which key its peers stand."""
    numbers = {port.get("port") for port in rule.get("ports", ())}
    if not numbers or not all(isinstance(number, int) for number in numbers):
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
            if numbers not in ({JOB_SERVER}, {METRICS}, {53}):
                yield "a pod of another namespace may do more than it needs"
            if "prometheus" in str(peer) and numbers != {METRICS}:
                yield "who may read the metrics may do more"


def _ray_ports(everything: list[Manifest], policies: list[Manifest]) -> Iterator[str]:
    """The ports of Ray's options are those that Ray's pods may reach of each other."""
    rules = [
        rule["ports"]
        for policy in policies
        for rule in policy.get("ingress", ())
        if rule.get("ports") and [peer.get("podSelector") for peer in rule.get("from", ())] == [policy["podSelector"]]
    ]
    ports = [port for rule in rules for port in rule]
    reached = {n for port in ports for n in range(port["port"], int(port.get("endPort", port["port"])) + 1)}
    for spec in filter(None, map(spec_of, everything)):
        cluster = spec["rayClusterSpec"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            given = group["rayStartParams"]
            fixed = {int(given.get(name, 0)) for name in PORTS} | {GCS, JOB_SERVER}
            fixed |= set(range(int(given.get("min-worker-port", 0)), int(given.get("max-worker-port", 0)) + 1))
            if fixed != reached:
                yield "Ray's ports are not those that its pods may reach of each other"


PLANTED = {
    "no token": ("rayjob.yaml", "authOptions: {mode: token} ", "", "asks for no token"),
    "a token that is not asked for": ("rayjob.yaml", "{mode: token}", "{mode: disabled}", "asks for no token"),
    "root": ("rayjob.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "root"),
    "privileges": ("rayjob.yaml", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "more than"),
    "a secret in clear": ("rayjob.yaml", "# - name: ANONLIB_SECRET", "- {name: ANONLIB_SECRET, value: a}", "stands in"),
    "a loose image": ("rayjob.yaml", f"anonlib:{__version__}-gpu", "anonlib:latest", "neither pinned"),
    "a mighty scheduler": ("cronjob.yaml", "verbs: [create]", "verbs: ['*']", "more than create"),
    "no egress": ("namespace.yaml", "policyTypes: [Ingress, Egress]", "policyTypes: [Ingress]", "one direction open"),
    "a namespace by a label": ("namespace.yaml", "kubernetes.io/metadata.name: ray-system", "team: a", "any namespace"),
    "an operator at every port": ("namespace.yaml", "      ports: [{port: 8265, protocol: TCP}]\n", "", "no ports"),
    "an open door for metrics": ("namespace.yaml", "[{port: 8080, protocol", "[{port: 8265, protocol", "may do more"),
    "the metadata service": ("namespace.yaml", "169.254.0.0/16, ", "", "0.0.0.0/0 more than"),
    "a scheduler that reaches everything": ("cronjob.yaml", "cidr: 10.0.0.0/8", "cidr: 0.0.0.0/0", "more than"),
    "workers at any port": ("namespace.yaml", "{port: 10002, endPort: 10999", "{port: 10002, endPort: 65535", "Ray's"),
    "a secret that no pod gets": ("job.yaml", "manager: anonlib-job", "env: ANONLIB_SECRET", "not where it is"),
}


def test_the_manifests_are_sound() -> None:
    assert problems(KUBERAY) == []


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_mistake_that_opens_a_door_is_found(mistake: str, tmp_path: Path) -> None:
    name, old, new, sentence = PLANTED[mistake]
    folder = Path(shutil.copytree(KUBERAY, tmp_path / "kuberay"))
    for file in [name, *(["raycronjob.yaml"] if name == "rayjob.yaml" else [])]:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))
    assert any(sentence in problem for problem in problems(folder)), problems(folder)


def test_kubernetes_takes_its_own_kinds_and_every_pod() -> None:
    everything = manifests(KUBERAY)
    templates = [{"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}
                 for _, template in pods(everything)]  # fmt: skip
    native = [manifest for manifest in everything if not manifest["apiVersion"].startswith("ray.io/")]
    for manifest in (*native, *templates):
        kubernetes_validate.validate(manifest, "1.35", strict=True)


def test_what_is_mounted_exists() -> None:
    kustomization = yaml.safe_load((KUBERAY / "kustomization.yaml").read_text())
    maps = {entry["name"]: entry["files"] for entry in kustomization["configMapGenerator"]}
    files = [*kustomization["resources"], *(file for names in maps.values() for file in names)]
    assert all((KUBERAY / file).is_file() for file in files)
    volumes = [volume for _, template in pods(manifests(KUBERAY)) for volume in template["spec"]["volumes"]]
    assert {volume["configMap"]["name"] for volume in volumes if "configMap" in volume} <= set(maps)


def test_without_secrets_manager_pods_take_the_secret_of_kubernetes(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(KUBERAY, tmp_path / "kuberay"))
    text = (folder / "job.yaml").read_text()
    (folder / "job.yaml").write_text(text.replace("manager: anonlib-job", "env: ANONLIB_SECRET", 1))
    for name in ("rayjob.yaml", "raycronjob.yaml"):
        text = (folder / name).read_text()
        for line in ("- name: ANONLIB_SECRET", "  valueFrom:", "    secretKeyRef:"):
            assert text.count(f"# {line}") == 1
            text = text.replace(f"# {line}", line)
        (folder / name).write_text(text)
    assert problems(folder) == []


def test_the_job_file_is_a_job_for_every_month() -> None:
    spec = importlib.util.spec_from_file_location("anonymize", ROOT / "jobs" / "anonymize.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    job = script.config_of(KUBERAY / "job.yaml", "2026-11")
    assert (job.input.uri, job.output.uri) == ("s3://photos/2026-11/*.tar", "s3://anonlib-release/2026-11")
    assert job.ray.address is None and job.secret.manager == "anonlib-job"
    terraform = ROOT / "infra" / "terraform"
    secrets = (terraform / "secret.tf").read_text()
    assert '"${var.name}-${each.key}"' in secrets and '\n    job     = "' in secrets
    assert 'default     = "anonlib"' in (terraform / "variables.tf").read_text()


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that refuses fields it does not name, as a cluster does when asked to be strict."""
    if schema.get("properties") and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
        for field in schema["properties"].values():
            strict(field)
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            strict(schema[inner])
    return schema


@pytest.mark.data
@pytest.mark.parametrize("kind", ["rayjob", "raycronjob"])
def test_kuberays_own_schema_takes_the_manifest_and_no_planted_mistake(kind: str) -> None:
    file = SCHEMAS / f"ray.io_{kind}s.yaml"
    if not file.is_file():
        pytest.skip(f"KubeRay's schemas are not in {SCHEMAS}")
    versions = yaml.load(file.read_text(), yaml.CSafeLoader)["spec"]["versions"]
    schema = strict(next(row["schema"]["openAPIV3Schema"] for row in versions if row["name"] == "v1"))
    schema["properties"]["metadata"].pop("additionalProperties", None)
    check = jsonschema.Draft202012Validator(schema)
    text = (KUBERAY / f"{kind}.yaml").read_text()
    assert [error.message for error in check.iter_errors(yaml.safe_load(text))] == []
    for old, new in (
        ("backoffLimit: 2", "backofLimit: 2"),
        ("maxReplicas: 64", "maxReplicas: many"),
        ("mountPath: /dev/shm", "mountPaths: /dev/shm"),
        ("key: spot", "keys: spot"),
        ("mode: token", "mode: none"),
        ("authOptions:", "authOption:"),
    ):
        assert old in text
        assert list(check.iter_errors(yaml.safe_load(text.replace(old, new)))), new
