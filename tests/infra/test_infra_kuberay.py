"""infra/kuberay is what KubeRay and Kubernetes take, and its pods hold no more than they must."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from anonlib import __version__
from tests.infra import dockerfiles, manifests

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "infra" / "kuberay"
SCHEMAS = ROOT.parent / "shared" / "schemas"
RAY = "{matchLabels: {app.kubernetes.io/component: ray}}"
PLANTED = {
    "a field that KubeRay has not": ("rayjob.yaml", "backoffLimit: 2", "backofLimit: 2", "backofLimit"),
    "a field of another type": ("rayjob.yaml", "backoffLimit: 2", 'backoffLimit: "2"', "backoffLimit"),
    "a field that a pod has not": ("rayjob.yaml", "nodeSelector:", "nodeSelectors:", "nodeSelectors"),
    "another Ray": ("rayjob.yaml", 'rayVersion: "2.60.0"', 'rayVersion: "2.9.0"', "rayVersion is 2.9.0"),
    "another script": ("rayjob.yaml", "anonymize.py /etc", "evaluate.py /etc", "entrypoint"),
    "a cluster for ever": (
        "rayjob.yaml",
        "shutdownAfterJobFinishes: true",
        "shutdownAfterJobFinishes: false",
        "outlive",
    ),
    "a disk that stays": (
        "rayjob.yaml",
        "emptyDir: {sizeLimit: 20Gi}",
        "persistentVolumeClaim: {claimName: a}",
        "outlives",
    ),
    "root": ("rayjob.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "root"),
    "privileges": ("rayjob.yaml", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "more than"),
    "no bounds": ("rayjob.yaml", "limits: {memory: 16Gi, ", "limits: {", "no bounds"),
    "no spot": ("rayjob.yaml", "{key: spot, operator", "{key: sport, operator", "does not tolerate spot"),
    "no GPU": ("rayjob.yaml", "{key: nvidia.com/gpu, operator", "{key: gpu, operator", "does not tolerate nvidia"),
    "GPU for nothing": (
        "rayjob.yaml",
        'limits: {cpu: "8", memory: 16Gi',
        'limits: {nvidia.com/gpu: "1", memory: 16Gi',
        "GPU",
    ),
    "a secret in clear": (
        "rayjob.yaml",
        "# - name: ANONLIB_SECRET",
        "- {name: ANONLIB_SECRET, value: abc}",
        "stands in the manifest",
    ),
    "a secret for the submitter": (
        "rayjob.yaml",
        "- {name: HOME, value: /tmp}",
        "- {name: ANONLIB_SECRET, valueFrom: {}}",
        "not needed",
    ),
    "statistics": (
        "rayjob.yaml",
        'RAY_USAGE_STATS_ENABLED, value: "0"',
        'RAY_USAGE_STATS_ENABLED, value: "1"',
        "report",
    ),
    "a loose image": ("rayjob.yaml", "anonlib:0.2.0-gpu", "anonlib:latest", "neither pinned"),
    "another schedule's job": ("raycronjob.yaml", "replicas: 4", "replicas: 5", "not run the same"),
    "a schedule in no zone": ("raycronjob.yaml", "  timeZone: Etc/UTC\n", "", "time zone"),
    "a loose kubectl": ("cronjob.yaml", "@sha256:", "-", "neither pinned"),
    "a mighty scheduler": ("cronjob.yaml", "verbs: [create]", "verbs: ['*']", "more than create"),
    "a field that a CronJob has not": ("cronjob.yaml", "concurrencyPolicy:", "concurrency:", "concurrency"),
    "no such account": ("namespace.yaml", "name: anonlib-submitter", "name: anonlib-somebody", "made nowhere"),
    "no token": ("rayjob.yaml", "authOptions: {mode: token} ", "", "asks for no token"),
    "a token that is not asked for": ("rayjob.yaml", "{mode: token}", "{mode: disabled}", "asks for no token"),
    "no network policy": ("namespace.yaml", "kind: NetworkPolicy", "kind: NetworkPolice", "no NetworkPolice"),
    "no closed namespace": ("namespace.yaml", "  podSelector: {}\n", f"  podSelector: {RAY}\n", "what no rule names"),
    "no egress": ("namespace.yaml", "policyTypes: [Ingress, Egress]", "policyTypes: [Ingress]", "one direction open"),
    "an operator of any namespace": (
        "namespace.yaml",
        "{matchLabels: {kubernetes.io/metadata.name: ray-system}}",
        "{}",
        "any namespace passes",
    ),
    "a namespace by a label that its owner chooses": (
        "namespace.yaml",
        "kubernetes.io/metadata.name: ray-system",
        "team: ray-system",
        "any namespace passes",
    ),
    "every pod of a namespace": (
        "namespace.yaml",
        "podSelector: {matchLabels: {app.kubernetes.io/name: kuberay-operator}}",
        "podSelector: {}",
        "a whole namespace",
    ),
    "an operator at every port": ("namespace.yaml", "      ports: [{port: 8265, protocol: TCP}]\n", "", "no ports"),
    "an operator at another port": ("namespace.yaml", "[{port: 8265, protocol", "[{port: 6379, protocol", "more than"),
    "an open door for metrics": ("namespace.yaml", "[{port: 8080, protocol", "[{port: 8265, protocol", "may do more"),
    "rules for everyone": (
        "namespace.yaml",
        "    - from: [{podSelector: *ray}]\n      ports",
        "    - ports",
        "names no peer",
    ),
    "pods that nothing lets work": ("rayjob.yaml", "component: submitter", "component: sender", "lets it do its work"),
    "the metadata service": ("namespace.yaml", "169.254.0.0/16, ", "", "0.0.0.0/0 more than"),
    "the whole internet": (
        "namespace.yaml",
        "ports: [{port: 443, protocol",
        "ports: [{port: 80, protocol",
        "more than",
    ),
    "a scheduler that reaches everything": ("cronjob.yaml", "cidr: 10.0.0.0/8", "cidr: 0.0.0.0/0", "more than"),
    "a port that Ray chooses": ("rayjob.yaml", 'node-manager-port: "8077"', 'num-gpus: "0"', "Ray's ports"),
    "workers at any port": ("namespace.yaml", "{port: 10002, endPort: 10999", "{port: 10002, endPort: 65535", "Ray's"),
    "nobody scrapes": ("rayjob.yaml", 'prometheus.io/scrape: "true"', 'prometheus.io/scrap: "true"', "not told where"),
    "another port": ("rayjob.yaml", 'metrics-export-port: "8080"', 'metrics-export-port: "8081"', "another port"),
    "a closed port": ("rayjob.yaml", "ports: [{name: metrics, containerPort: 8080}]", "ports: []", "is not declared"),
    "lost logs": ("rayjob.yaml", 'RAY_LOG_TO_STDERR, value: "1"', 'RAY_LOG_TO_STDERR, value: "0"', "vanish with it"),
    "no such file": ("kustomization.yaml", "files: [job.yaml]", "files: [jobs.yaml]", "does not exist"),
    "no such map": ("kustomization.yaml", "name: anonlib-job", "name: anonlib-jobs", "ConfigMap anonlib-job "),
    "another secret": ("job.yaml", "manager: anonlib-job", "file: /etc/secret", "does not take its secret"),
    "a secret that nobody gets": ("job.yaml", "manager: anonlib-job", "env: ANONLIB_SECRET", "not where it is"),
    "no YAML": ("rayjob.yaml", "spec:\n", "spec\n", "not YAML"),
}


def found(folder: Path) -> list[str]:
    return manifests.problems(folder, dockerfiles.locked(ROOT)["ray"], __version__)


def test_the_manifests_are_sound() -> None:
    assert found(KUBERAY) == []


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_found(mistake: str, tmp_path: Path) -> None:
    name, old, new, said = PLANTED[mistake]
    folder = Path(shutil.copytree(KUBERAY, tmp_path / "kuberay"))
    for file in [name, *(["raycronjob.yaml"] if name == "rayjob.yaml" else [])]:
        text = (folder / file).read_text()
        # The copy in raycronjob.yaml is indented further.
        change = (old, new) if old in text else tuple(one.replace("\n", "\n  ") for one in (old, new))
        assert change[0] in text
        (folder / file).write_text(text.replace(*change, 1))
    assert any(said in one for one in found(folder)), found(folder)


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
    assert found(folder) == []


def test_every_file_has_a_planted_mistake() -> None:
    assert {path.name for path in KUBERAY.iterdir()} == {name for name, *_ in PLANTED.values()}


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
        for one in schema["properties"].values():
            strict(one)
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
    schema = strict(next(one["schema"]["openAPIV3Schema"] for one in versions if one["name"] == "v1"))
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


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on this machine")
def test_kustomize_builds_what_is_shared() -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", str(KUBERAY)], capture_output=True, text=True, timeout=60, check=True
    )
    kinds = [one["kind"] for one in yaml.safe_load_all(built.stdout)]
    assert sorted(kinds) == ["ConfigMap"] * 2 + ["Namespace"] + ["NetworkPolicy"] * 3 + ["ServiceAccount"] * 2
