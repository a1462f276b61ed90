"""The job file: read once from YAML and flags, checked, frozen, and hashed into every run key.

Flags win over the file, the file wins over the defaults. What a run means is in the hash; where it
runs (actors, GPUs, endpoints) is not, so that a laptop may finish what a cluster began. A secret is
named here, never held.
"""

from __future__ import annotations

import hashlib
import json
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from anonlib.cluster import MACHINE_LIMITS
from anonlib.cluster import LimitsConfig as LimitsConfig
from anonlib.cluster import RayConfig as RayConfig
from anonlib.errors import ConfigError
from anonlib.methods.settings import CLASS_METHODS as CLASS_METHODS
from anonlib.methods.settings import CROP_METHODS as CROP_METHODS
from anonlib.methods.settings import METHOD_FILES as METHOD_FILES
from anonlib.methods.settings import STILL_RECOGNIZED as STILL_RECOGNIZED
from anonlib.methods.settings import SYNTHESIS_METHODS as SYNTHESIS_METHODS
from anonlib.methods.settings import VECTOR_METHODS as VECTOR_METHODS
from anonlib.methods.settings import MethodConfig as MethodConfig


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputConfig(_Frozen):
    """What to read. `uri` is a file, a folder, a glob or a brace range; `subject_field` names the person's label."""

    uri: str
    format: str | None = None
    subject_field: str | None = None
    image_field: str | None = None
    key_field: str | None = None


class PlaceConfig(_Frozen):
    """A folder or an s3:// prefix."""

    uri: str


class OutputConfig(PlaceConfig):
    """Where the release goes, and its `release` name: draws and pseudonyms of another name, or URI, are others."""

    release: str | None = None


class DetectorConfig(_Frozen):
    """`side`: an image's longer side is shrunk to this many px before detection; `score`: least score of a face.

    `precision`: bf16 finds faces about twice as fast on a CPU that computes in it; borderline faces may differ.
    """

    name: str = "centerface"
    side: int = Field(default=640, ge=128, le=4096)
    score: float = Field(default=0.4, gt=0.0, lt=1.0)
    precision: Literal["f32", "bf16"] = "f32"


class SecretConfig(_Frozen):
    """Where a secret comes from, one of four. `secret` keys draws and signs; none: it is made once for the workspace.

    A secret is 32 random bytes in hex or base64 (`openssl rand -hex 32`), or a passphrase of 16 characters or more,
    which is stretched. `signing`, where given, is another secret that signs certificates in place of `secret`.

    `env`: an environment variable. `file`: a local file. `manager`: the name or ARN of a secret of AWS Secrets Manager,
    of which `field` picks an entry if it holds JSON and `version` (an id) one that is not the current. `kms`: a file,
    local or s3://, that AWS KMS opens. `profile`: whose AWS credentials the last two use, where the store needs others.
    """

    env: str | None = None
    file: str | None = None
    manager: str | None = None
    kms: str | None = None
    field: str | None = None
    version: str | None = None
    profile: str | None = None

    @property
    def named(self) -> bool:
        """Whether the secret is somebody's, and not the workspace's own."""
        return any((self.env, self.file, self.manager, self.kms))

    @model_validator(mode="after")
    def _one_source(self) -> SecretConfig:
        if sum(map(bool, (self.env, self.file, self.manager, self.kms))) > 1:
            raise ValueError("give one of env, file, manager and kms")
        if (self.field or self.version) and not self.manager:
            raise ValueError("field and version belong to manager")
        if self.profile and not (self.manager or self.kms):
            raise ValueError("profile belongs to manager and kms")
        return self


class LedgerConfig(_Frozen):
    """The place that remembers people over releases, and the `budget`: the most epsilon that one of them may spend.

    `absences`: whether others may know whose photos a dataset does not hold. If `known`, only the people who are there
    count towards k. `unknown` counts absent members of a class too, and must be true of everybody who sees a release.
    """

    uri: str
    absences: Literal["known", "unknown"] = "known"
    budget: float | None = Field(default=None, ge=0)


class StorageConfig(_Frozen):
    """An S3 server that is not AWS."""

    endpoint_url: str | None = None
    region: str | None = None


class PolicyConfig(_Frozen):
    """What an audit must find for a release to pass; it is always the bound of the 95 % interval that counts.

    `excess`: how much more often any attacker may name or verify people than if every face were a flat ellipse, since
    what hair, clothes and place give away is no method's. `missed`: the share of images in which a second look may
    find a face that was left as it was. `reviewed`: how many images a person must have judged, and `reviewed_upper`
    the Clopper-Pearson bound that they must reach. `kept`: the least value of measures of utility, by name. `promised`:
    the release says that it is audited, so `anonlib verify` ends with exit code 4 where the audit is missing. Nothing
    here asks whether leaks are allowed, or a certificate that does not hold.
    """

    excess: float = Field(default=0.03, ge=0, le=1)
    missed: float = Field(default=0.05, ge=0, le=1)
    reviewed: int = Field(default=0, ge=0)
    reviewed_upper: float = Field(default=0.01, gt=0, le=1)
    kept: dict[str, float] = Field(default_factory=dict)
    promised: bool = False


class JobConfig(_Frozen):
    """One job. Every field has a flag of the same name (`--method k-diff --k 5`)."""

    input: InputConfig
    output: OutputConfig
    workspace: PlaceConfig
    method: MethodConfig = MethodConfig()
    detector: DetectorConfig = DetectorConfig()
    keep_fields: tuple[str, ...] = ()
    rekey: bool = False
    jpeg_quality: int = Field(default=92, ge=50, le=100)
    limits: LimitsConfig = LimitsConfig()
    secret: SecretConfig = SecretConfig()
    signing: SecretConfig | None = None
    ledger: LedgerConfig | None = None
    ray: RayConfig = RayConfig()
    storage: StorageConfig = StorageConfig()
    policy: PolicyConfig = PolicyConfig()
    accept_licences: tuple[str, ...] = ()

    @field_validator("keep_fields")
    @classmethod
    def _sorted_unique(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _places_apart(self) -> JobConfig:
        places = {"input": self.input.uri, "output": self.output.uri, "workspace": self.workspace.uri}
        if self.ledger:
            places["ledger"] = self.ledger.uri
        for first, second in combinations(("ledger", "output", "workspace", "input"), 2):
            if first not in places:
                continue
            a, b = (_absolute(places[name]) for name in (first, second))
            if a == b or a.startswith(b + "/") or (second != "input" and b.startswith(a + "/")):
                raise ValueError(
                    f"{first} ({places[first]}) and {second} ({places[second]}) must be separate places: workspace "
                    "and ledger hold personal data, the output leaves the building, and a purge keeps the ledger"
                )
        return self

    @model_validator(mode="after")
    def _signs(self) -> JobConfig:
        if self.signing and not self.signing.named:
            raise ValueError("signing: name a secret by signing.env, .file, .manager or .kms, or leave it out")
        return self

    @model_validator(mode="after")
    def _remembers(self) -> JobConfig:
        if self.ledger and not self.secret.named:
            raise ValueError(
                "a ledger knows people over releases by the secret; name one by secret.env, .file, .manager or .kms"
            )
        draws = self.method.name in VECTOR_METHODS | CROP_METHODS
        if self.method.draw == "reuse" and (self.ledger is None or not draws):
            raise ValueError("method.draw: reuse needs a ledger that remembers the draws, and a method that draws")
        return self

    def digest(self, *parts: str) -> str:
        """Hex sha256 of the named top-level parts: what two runs must share to continue each other.

        Where the method's files lie is not in it; what is in them counts, and the plan's key holds that. Nor are
        MACHINE_LIMITS.
        """
        everything = self.model_dump(mode="json", exclude={"method": set(METHOD_FILES), "limits": set(MACHINE_LIMITS)})
        chosen = {part: everything[part] for part in sorted(parts)}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()

    @property
    def shard_bytes(self) -> int:
        """Bytes of photos that one shard may hold at once: its share of limits.memory_mib."""
        return int(self.limits.memory_mib * (1 << 20) / self.ray.shards_at_once)

    def to_yaml(self) -> str:
        """The job as it would run, defaults filled in."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def no_job() -> JobConfig:
    """A job that never runs, for whoever reads photos as one does: its limits and its detector are the defaults."""
    return JobConfig(
        input=InputConfig(uri="none"), output=OutputConfig(uri="nowhere"), workspace=PlaceConfig(uri="no-workspace")
    )


def _absolute(uri: str) -> str:
    if "://" in uri and not uri.startswith("file://"):
        return uri.rstrip("/")
    return str(Path(uri.removeprefix("file://")).absolute()).rstrip("/")


def load_config(path: Path | None = None, overrides: dict[str, Any] | None = None) -> JobConfig:
    """The job in `path` with `overrides` (dotted keys: `method.k`) on top; raises ConfigError."""
    document: dict[str, Any] = {}
    if path is not None:
        try:
            document = yaml.safe_load(path.read_text()) or {}
        except OSError as error:
            raise ConfigError(f"the job file {path} cannot be read: {error.strerror}") from None
        except yaml.YAMLError as error:
            raise ConfigError(f"the job file {path} is not YAML: {error}") from None
        if not isinstance(document, dict):
            raise ConfigError(f"the job file {path} must be a mapping with the keys input, output, workspace")
    for dotted, value in (overrides or {}).items():
        if value is None:
            continue
        *parents, leaf = dotted.split(".")
        node = document
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{parent} in the job file must be a mapping")
        node[leaf] = value
    try:
        return JobConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    """Every complaint of pydantic as `key: what is wrong`, joined."""
    complaints = []
    for item in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in item["loc"]) or "the job"
        what = item["msg"].removeprefix("Value error, ")
        if item["type"] == "missing":
            what = "is missing"
        elif item["type"] == "extra_forbidden":
            what = "is not a key of a job file"
        complaints.append(f"{where}: {what}")
    return "; ".join(complaints)
