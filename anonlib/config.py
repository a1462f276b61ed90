"""The job file: read once from YAML and flags, checked, frozen, and hashed into every run key.

Each key is described once, where it is declared: the command line's flags and docs/job-file.md derive from here
(`python jobs/job_file.py`). Flags win over the file. What a run means is in the hash; where it runs
(actors, GPUs, endpoints) is not, so that a laptop may finish what a cluster began. A secret is named here, never held.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from anonlib.errors import ConfigError, StorageError, suggestion
from anonlib.storage import StorageOptions, parse_uri

SHARDS_OF_A_GPU = 4
"""Shards that an actor with a GPU works on at once, so that the GPU computes while others decode and paste."""
NO_DETECTOR = "none"
MACHINE_LIMITS = ("chunk", "memory_mib")
"""Limits that say how much is held at once; results do not depend on them, so runs may differ in them."""


class Frozen(BaseModel):
    """It never changes, and is closed: an unknown key is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _key(description: str, default: Any = ..., *, flag: str | None = None, **constraints: Any) -> Any:
    """A key of the job file with its description; `flag` where the command line has another name for it."""
    return Field(default, description=description, json_schema_extra={"flag": flag} if flag else None, **constraints)


def _with_commas(value: Any) -> Any:
    """A list of names as the text that a flag would hold."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


class InputConfig(Frozen):
    """What to read."""

    uri: str = _key(
        "A file, a folder, a glob or a brace range such as `{000..099}.tar`; local, s3://, gs://, abfs:// or hf://."
    )
    format: str | None = _key("webdataset, parquet or folder; guessed from the names if not given.", None)
    subject_field: str | None = _key("The sidecar's field that names the person; without it faces are clustered.", None)
    image_field: Annotated[str | None, BeforeValidator(_with_commas)] = _key(
        "The member or column that holds the image; several as a list (a flag: with commas), `*` for every one.", None
    )
    key_field: str | None = _key("The column that holds the key (Parquet).", None)
    boxes_field: str | None = _key(
        "The sidecar's field or the column with boxes of yours, hidden beside what the detector finds.", None
    )
    boxes_format: Literal["xyxy", "xywh", "xyxyn", "xywhn", "yolo"] = _key(
        "Corners, or corner and size (COCO's), in px of the upright image; with n, and yolo's centre and size, as "
        "shares of its sides.",
        "xyxy",
    )
    boxes_kinds: dict[str, str] = Field(
        default_factory=dict,
        description="What your kinds mean, such as `{0: face, crowd: ignore}`; a box without a kind is a face. A face "
        "is replaced; any other kind is hidden as `fallback` says.",
    )
    boxes_ignore: bool = _key(
        "A face that the detector finds inside boxes of the kind `ignore` stays as it is; else such boxes change "
        "nothing. What `hide` names is hidden there, too.",
        False,
    )

    @field_validator("boxes_kinds", mode="before")
    @classmethod
    def _by_text(cls, value: Any) -> Any:
        return {str(name): kind for name, kind in value.items()} if isinstance(value, dict) else value


class OutputConfig(Frozen):
    """Where the release goes."""

    uri: str = _key("A folder or a prefix of a bucket; what lies there may leave the building.")
    release: str | None = _key("The release's name; draws and pseudonyms of another name, or URI, are others.", None)


class WorkspaceConfig(Frozen):
    """Where personal data stays until it is purged: embeddings, crops, the mapping and the secret."""

    uri: str = _key("A folder or a prefix of a bucket; not in the output.")


class SpareConfig(Frozen):
    """Whose faces stay as they are in photos; in clips all are hidden. Two recognizers must be sure; in doubt a face is
    hidden."""

    people: str = _key(
        "A folder or bucket with photos of people who agreed, each of one face; several of a person in a folder.",
        flag="--spare",
    )


class DetectorConfig(Frozen):
    """How faces are found."""

    name: Annotated[str, BeforeValidator(_with_commas)] = _key(
        "What finds faces: centerface, yuface, or scrfd with a network of yours; several as a list (a flag: with "
        "commas), for what any of them finds; none, for boxes of yours alone.",
        "centerface",
    )
    path: str | None = _key("Of scrfd: your .onnx file, or the folder of an InsightFace pack.", None)
    side: int = _key("The longer side of an image during detection, in px.", 640, ge=128, le=4096)
    score: float = _key("The least score of a face.", 0.4, gt=0.0, lt=1.0)

    @property
    def names(self) -> tuple[str, ...]:
        """The detectors in their order, each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.name.split(",")))

    @property
    def searching(self) -> DetectorConfig:
        """What looks for faces in a release: these detectors, or CenterFace where a job has boxes alone."""
        return self.model_copy(update={"name": "centerface"}) if self.names == (NO_DETECTOR,) else self


class HideConfig(Frozen):
    """How regions of one kind are hidden, and what finds them."""

    method: Literal["fill", "solid", "blur", "pixelate"] = "fill"
    path: str | None = None
    score: float | None = Field(None, gt=0.0, lt=1.0)

    @model_validator(mode="before")
    @classmethod
    def _by_method(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value


class LimitsConfig(Frozen):
    """What a single image may cost before it is quarantined unread, and what a worker may hold at once."""

    image_mpx: float = _key("Larger images are quarantined unread, in megapixels.", 100.0, gt=0, flag="--max-mpx")
    image_mib: float = _key("Larger files are quarantined unread, in MiB.", 128.0, gt=0, flag="--max-mib")
    image_seconds: float = _key(
        "Seconds that decoding an image, or a window of a clip's frames, may take.", 60.0, gt=0, flag="--max-seconds"
    )
    clip_mpx: float = _key("Clips of larger frames are quarantined unread, in megapixels.", 9.0, gt=0)
    clip_mib: float = _key("Larger clips are quarantined unread, in MiB.", 16384.0, gt=0)
    clip_minutes: float = _key("Longer clips are quarantined.", 240.0, gt=0)
    clip_fps: float = _key("Clips of more frames a second are quarantined.", 250.0, gt=0)
    chunk: int = _key("Images of a shard that are worked on together.", 32, ge=1, le=512)
    memory_mib: float = _key(
        "Photos that a worker, or a core without Ray, holds, files and pixels, in MiB.", 512.0, gt=0
    )


class ClipConfig(Frozen):
    """How clips leave."""

    audio: Literal["drop", "keep"] = _key(
        "`drop`: without sound, since a voice tells who speaks. `keep`: the first sound is encoded anew.",
        "drop",
        flag="--clip-audio",
    )
    crf: int = _key(
        "The quality of H.264, lower is better; VP9 gets 12 more, MPEG-4 in AVI a quantizer of 1 + crf / 9, and an "
        "animated WebP the quality 100 - crf.",
        18,
        ge=0,
        le=40,
        flag="--clip-crf",
    )
    segment: float | None = _key(
        "Seconds: a longer clip is worked on in parts of at least that, cut at its key frames and joined without "
        "another encoding, so that a run that is killed begins a part anew and not the clip.",
        None,
        ge=1,
        flag="--clip-segment",
    )


class SecretConfig(Frozen):
    """One of env, file, manager and kms. `secret` keys draws and signs; without one it is made once and kept in the
    workspace. `signing`, where given, signs in its place. A secret is 32 random bytes in hex or base64
    (`openssl rand -hex 32`), or a passphrase of 16 characters or more, which is stretched. Each worker reads it itself,
    and is refused if it reads another than the job began with, so a rotation waits for the next run.
    """

    env: str | None = _key("The environment variable that holds it.", None)
    file: str | None = _key("The local file that holds it.", None)
    manager: str | None = _key("Its name or ARN in AWS Secrets Manager.", None)
    kms: str | None = _key("The file that AWS KMS opens to it (encryption context `anonlib=secret`).", None)
    field: str | None = _key("The entry that holds it, if Secrets Manager has JSON there.", None)
    version: str | None = _key("The id of the version that Secrets Manager gives, if not the current one.", None)
    profile: str | None = _key("The AWS profile for manager and kms, if the store needs another.", None)

    @property
    def named(self) -> bool:
        """Whether the job names a secret, and does not use the workspace's own."""
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


class LedgerConfig(Frozen):
    """The place that remembers people over releases."""

    uri: str = _key("A folder or a prefix of a bucket; not in the workspace, whose purge keeps it.", flag="--ledger")
    absences: Literal["known", "unknown"] = _key(
        "known: others may know who is absent, so only people who are there count towards k. unknown counts absent "
        "members too, and must be true of everybody who sees a release.",
        "known",
    )
    budget: float | None = _key("The most epsilon that one person may spend over all releases.", None, ge=0)


class RayConfig(Frozen):
    """Where the job runs. Results do not depend on it."""

    actors: int | None = _key(
        "Workers; 0: this process on all its cores, without Ray; none given: as many as have room.", None, ge=0
    )
    num_gpus: float = _key("GPUs of each worker: a part of one GPU, or whole ones.", 0.0, ge=0)
    shards: int | None = _key(f"Shards a worker has at once; else 1, {SHARDS_OF_A_GPU} with a GPU.", None, ge=1, le=64)
    wait_s: float = _key("Seconds to wait where a cluster has no machine for a worker.", 300.0, ge=0, flag="--ray-wait")
    address: str | None = _key("The Ray cluster to use; else Ray is started here.", None, flag="--ray-address")
    part: str | None = _key(
        "I/N: the I-th (from 0) of N parts of the shards, where a scheduler divides a scan, a render, or the run of a "
        "redaction among machines that know nothing of each other.",
        None,
        pattern=r"^\d{1,6}/[1-9]\d{0,5}$",
        flag="--part",
    )

    @field_validator("part")
    @classmethod
    def _one_of_them(cls, value: str | None) -> str | None:
        if value and int(value.partition("/")[0]) >= int(value.partition("/")[2]):
            raise ValueError(f"parts are counted from 0, so {value} is none of them")
        return value

    @field_validator("num_gpus")
    @classmethod
    def _part_or_whole(cls, value: float) -> float:
        if (value > 1 and value != int(value)) or 0 < value < 0.0001:
            raise ValueError(f"an actor gets a part of one GPU, of at least 0.0001, or whole ones, not {value:g}")
        return value

    @property
    def threads(self) -> int:
        """How many cores a worker uses: without Ray all, else one."""
        return len(os.sched_getaffinity(0)) if self.actors == 0 else 1

    @property
    def shards_at_once(self) -> int:
        """How many shards a worker works on at once: without Ray one on each core."""
        if self.actors == 0:
            return self.threads
        return self.shards or (SHARDS_OF_A_GPU if self.num_gpus else 1)


class StorageConfig(Frozen):
    """Where S3 is, if not at AWS, and what buckets ask for; Google's and Azure's clients read their own environment.

    A server that is not AWS gets no checksums that only AWS knows, unless AWS_REQUEST_CHECKSUM_CALCULATION says so.
    """

    endpoint_url: str | None = _key("An S3 server that is not AWS.", None)
    region: str | None = _key("The region of the buckets.", None)
    kms_key: str | None = _key("The id or ARN of the AWS KMS key that encrypts every object written (SSE-KMS).", None)
    requester_pays: bool = _key("Your account pays for the requests, as some buckets ask.", False)
    anonymous: bool = _key(
        "The input is read without credentials, as a public bucket allows.",
        False,
        flag="--public-input/--no-public-input",
    )

    @property
    def options(self) -> StorageOptions:
        """How to reach output, workspace and ledger."""
        return StorageOptions(self.endpoint_url, self.region, self.kms_key, self.requester_pays)

    @property
    def input_options(self) -> StorageOptions:
        """How to reach the input."""
        return replace(self.options, anonymous=self.anonymous)


class PolicyConfig(Frozen):
    """What an audit must find for a release to pass; the bound of the 95 % interval counts."""

    excess: float = _key(
        "How much more often attackers may name or verify people than with one face for everybody.", 0.03, ge=0, le=1
    )
    context: float = _key(
        "How much more often they may do so with one face for everybody than on flat ellipses.", 0.10, ge=0, le=1
    )
    missed: float = _key("The share of images in which a second look may find a face left as it was.", 0.05, ge=0, le=1)
    reviewed: int = _key("How many images a person must have judged.", 0, ge=0)
    reviewed_upper: float = _key("The Clopper-Pearson bound that those must reach.", 0.01, gt=0, le=1)
    kept: dict[str, float] = Field(default_factory=dict, description="The least value of measures of utility, by name.")
    promised: bool = _key("The release promises an audit.", False, flag="--promise-audit/--no-promise-audit")


class MethodConfig(Frozen):
    """What replaces a face, and what it may cost the person's privacy."""

    # Every release's run.json records all of these keys, so they stand here. A method that needs others adds them in a
    # subclass, its `Settings`, which also checks those that it reads.
    FILES: ClassVar[tuple[str, ...]] = ("swapper", "recognizer", "donors")
    """Keys that say where something lies: what is in it counts, and releases name its sha256 instead."""

    name: str = _key("What replaces a face (docs/methods.md).", "k-diff")
    k: int = _key("The least number of people that share one new face.", 5, ge=2, le=1000)
    texture: str | None = _key("How a new face is made.", None)
    epsilon: float | None = _key("Of dp-laplace and dp-subset (a release), and dp-purkayastha (a radian).", None, gt=0)
    near: int | None = _key("Of dp-subset: how many faces of the gallery count as like the person.", None, ge=1)
    kappa: float | None = _key("Of dp-vmf, a unit of Euclidean distance.", None, gt=0)
    own_angle: float = _key("Degrees between a sampled identity and its subject.", 75.0, gt=0, lt=180)
    other_angle: float = _key("Degrees between a sampled identity and everybody else.", 50.0, gt=0, lt=180)
    region: Literal["skin", "wide"] = _key(
        "Where a new face ends: skin, in front of hair, caps and scarves; wide, further out and over the hairline.",
        "skin",
        flag="--face-region",
    )
    accept: str | None = _key("Of embedding: that people can still recognize these faces, in these words.", None)
    swapper: str | None = _key("Of inswapper: your swapper's .onnx file.", None)
    recognizer: str | None = _key("Of inswapper: the ArcFace .onnx that the swapper was made for.", None)
    donors: str | None = _key("Of inswapper: photos of people who agreed to lend their faces.", None)

    def released(self, digests: Mapping[str, str]) -> dict[str, Any]:
        """These settings as run.json states them: of each file its sha256, by key, or None; of the decoder, too."""
        # `draw` was a key: releases of schema version 4 have it, all with this value.
        files = {key: digests.get(key) for key in (*self.FILES, "decoder")}
        return self.model_dump(mode="json") | files | {"draw": "fresh"}


def _method_settings(document: Any) -> Any:
    # The one import from above: which settings a method has is known where the methods are, and checked here.
    from anonlib.methods import settings_of

    return settings_of(document)


class JobConfig(Frozen):
    """One job. Every key has a flag of the same name (`--method k-diff --k 5`)."""

    input: InputConfig
    output: OutputConfig
    workspace: WorkspaceConfig
    method: SerializeAsAny[MethodConfig] = Field(default_factory=lambda: _method_settings({}))
    detector: DetectorConfig = DetectorConfig()
    precision: Literal["auto", "f32", "bf16"] = _key(
        "In what networks compute; bf16: those whose answers hold in it (docs/models.md). auto: bf16 where the job "
        "begins on a CPU that has it.",
        "auto",
    )
    hide: dict[Literal["text", "person", "plate"], HideConfig] = Field(
        default_factory=dict,
        description="What else is hidden, each kind by a redaction: `{text: fill, person: solid}`. A kind may have "
        "keys, too: `{plate: {method: solid, path: plates.onnx, score: 0.3}}`, your network and the least score "
        "(docs/models.md). `face` stands for `method.name`.",
    )
    spare: SpareConfig | None = None
    keep_fields: tuple[str, ...] = _key("Fields of the sidecars that pass; all others are dropped.", ())
    too_few: Literal["stop", "ellipse"] = _key(
        "Where people are fewer than twice k, or no class can be formed: end after the plan, or go on with ellipses. "
        "With the texture gallery each person then gets a face of it at random, outside the claim.",
        "stop",
    )
    fallback: Literal["fill", "solid"] = _key(
        "What hides a face that the method cannot replace: an ellipse filled smoothly from around it, or a grey one.",
        "fill",
    )
    rekey: bool = _key("Keys, shard and file names become pseudonyms, for names that are people's.", False)
    outside: Literal["exact", "reencode"] = _key(
        "Outside replaced faces: `exact` keeps each file's own data (a JPEG's coefficients, orientation and tables), "
        "`reencode` writes every photo anew, upright and with `jpeg_quality`.",
        "exact",
    )
    mark: bool = _key(
        "Photos with a drawn face say so in a fixed packet of XMP (IPTC's compositeWithTrainedAlgorithmicMedia).",
        True,
    )
    jpeg_quality: int = _key("Quality of JPEGs that are encoded anew without tables of their own.", 92, ge=50, le=100)
    accept_licences: tuple[str, ...] = _key("Models whose non-commercial licence you accept.", ())
    clip: ClipConfig = ClipConfig()
    limits: LimitsConfig = LimitsConfig()
    secret: SecretConfig = SecretConfig()
    signing: SecretConfig | None = None
    ledger: LedgerConfig | None = None
    ray: RayConfig = RayConfig()
    storage: StorageConfig = StorageConfig()
    policy: PolicyConfig = PolicyConfig()

    @model_validator(mode="before")
    @classmethod
    def _face_as_method(cls, document: Any) -> Any:
        hide = document.get("hide") if isinstance(document, dict) else None
        if not isinstance(hide, dict) or "face" not in hide:
            return document
        face, method = hide["face"], document.get("method") or {}
        if not isinstance(method, dict) or method.get("name", face) != face:
            raise ValueError("hide.face and method.name both say what replaces a face; leave one of them out")
        others = {kind: how for kind, how in hide.items() if kind != "face"}
        return document | {"hide": others, "method": method | {"name": face}}

    @field_validator("method", mode="before")
    @classmethod
    def _of_its_method(cls, value: Any) -> Any:
        return _method_settings(value)

    @field_validator("keep_fields")
    @classmethod
    def _sorted_unique(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _fits(self) -> JobConfig:
        places = {"output": self.output.uri, "workspace": self.workspace.uri, "input": self.input.uri}
        if self.ledger:
            places = {"ledger": self.ledger.uri} | places
        for name, uri in places.items():
            try:
                parse_uri(uri)
            except StorageError as error:
                raise ValueError(f"{name}: {error}") from None
        for first, second in combinations(places, 2):
            a, b = comparable(places[first], places[second])
            if a == b or a.startswith(b + "/") or (second != "input" and b.startswith(a + "/")):
                raise ValueError(
                    f"{first} ({places[first]}) and {second} ({places[second]}) must be separate places: workspace "
                    "and ledger hold personal data, the output leaves the building, and a purge keeps the ledger"
                )
        if NO_DETECTOR in self.detector.names and (len(self.detector.names) > 1 or not self.input.boxes_field):
            raise ValueError("detector.name: none stands alone, and needs input.boxes_field")
        for kind, how in self.hide.items():
            if (kind == "plate") != (how.path is not None):
                raise ValueError(
                    "hide.plate: needs `path`, the .onnx file of a network of yours that finds plates (docs/models.md)"
                    if kind == "plate"
                    else f"hide.{kind}.path: is not a key; anonlib brings the network that finds a {kind}"
                )
        if "person" in self.hide and (self.spare or self.input.boxes_ignore):
            raise ValueError(
                "hide.person: would hide faces that spare or input.boxes_ignore keep, and the certificate would call "
                "them kept; leave one of them out"
            )
        if self.signing and not self.signing.named:
            raise ValueError("signing: name a secret by signing.env, .file, .manager or .kms, or leave it out")
        if self.ledger and not self.secret.named:
            raise ValueError(
                "a ledger knows people over releases by the secret; name one by secret.env, .file, .manager or .kms"
            )
        return self

    def digest(self, *parts: str) -> str:
        """Hex sha256 of top-level parts, which runs of a job share; no places, no MACHINE_LIMITS."""
        everything = self.model_dump(
            mode="json",
            exclude={
                "method": set(self.method.FILES),
                "detector": {"path"},
                "input": {"uri"},
                "hide": {"__all__": {"path"}},
                "limits": set(MACHINE_LIMITS),
                "clip": set() if self.clip.segment else {"segment"},
            },
        )
        chosen = {part: everything[part] for part in sorted(parts)}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()

    @property
    def shard_bytes(self) -> int:
        """Bytes of photos that one shard may hold at once: its share of limits.memory_mib, which each core has."""
        return int(self.limits.memory_mib * (1 << 20) * self.ray.threads / self.ray.shards_at_once)

    def to_yaml(self) -> str:
        """The job as it would run, defaults filled in."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def no_job() -> JobConfig:
    """A job that never runs, for reading photos with the default limits and detector."""
    places = {"input": "none", "output": "nowhere", "workspace": "no-workspace"}
    return JobConfig.model_validate({name: {"uri": uri} for name, uri in places.items()})


def comparable(first: str, second: str) -> tuple[str, str]:
    """Two places in one spelling; an account at Azure counts if both name one, since the environment may name it."""
    (root, path), (other_root, other_path) = parse_uri(first), parse_uri(second)
    if "@" not in root or "@" not in other_root:
        root, other_root = root.partition("@")[0], other_root.partition("@")[0]
    return f"{root}/{path}".rstrip("/"), f"{other_root}/{other_path}".rstrip("/")


def load_config(
    source: Path | Mapping[str, Any] | None = None, overrides: Mapping[str, Any] | None = None
) -> JobConfig:
    """The job of a file, or of what it would hold, with `overrides` by dotted key (`method.k`); raises ConfigError."""
    document = _read(source) if isinstance(source, Path) else deepcopy(dict(source or {}))
    for dotted, value in (overrides or {}).items():
        if value is None:
            continue
        *parents, leaf = dotted.split(".")
        node = document
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(_no_mapping(parent))
        node[leaf] = value
    try:
        return JobConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigError("; ".join(_complaint(each, document) for each in error.errors(include_url=False))) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"the job file {path} cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"the job file {path} must be a mapping with the keys input, output, workspace")
    return document


_PLAIN = {
    "missing": "is missing",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    "string_type": "must be text; put it in quotes if it looks like a number",
    "tuple_type": "must be a list, such as [caption]",
    "dict_type": "must be a mapping of names to values",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
}
"""Errors of pydantic by type, in plain words. None quotes the value, which may be a secret in a wrong place."""


def _complaint(error: Any, document: Mapping[str, Any]) -> str:
    """An error of pydantic about a job file as `key: what is wrong`."""
    kind, path = error["type"], [str(part) for part in error["loc"] if part != "[key]"]
    where, context = ".".join(path) or "the job", error.get("ctx", {})
    if kind in ("model_type", "model_attributes_type"):
        return _no_mapping(where)
    if kind == "extra_forbidden":
        return f"{where}: is not a key of a job file; {_nearest_key(path, document)}"
    if kind == "literal_error":
        choices = re.findall("'([^']*)'", context["expected"])
        return f"{where}: there is no '{error['input']}'; {suggestion(str(error['input']), choices)}"
    plain = _PLAIN[kind].format(**context) if kind in _PLAIN else error["msg"].removeprefix("Value error, ")
    return f"{where}: {plain}"


def _no_mapping(section: str) -> str:
    example = next(
        (key.path.removeprefix(f"{section}.") for key in keys() if key.path.startswith(f"{section}.")), "key"
    )
    return f"{section}: holds keys of its own; write {section}: {{{example}: ...}}"


def _nearest_key(path: Sequence[str], document: Mapping[str, Any]) -> str:
    """What may have been meant by a key that does not exist: the same in another section, or one with a like name."""
    from anonlib.methods import METHODS

    *section, name = path
    known = {key.path for key in keys()} | set(JobConfig.model_fields)
    if section == ["method"]:
        known |= {f"method.{key}" for key in METHODS[document["method"].get("name", "k-diff")].Settings.model_fields}
    if elsewhere := [key for key in sorted(known) if key.rpartition(".")[2] == name]:
        return f"did you mean {' or '.join(elsewhere)}?"
    beside = [key.rpartition(".")[2] for key in sorted(known) if key.rpartition(".")[0] == ".".join(section)]
    return suggestion(name, beside)


_PREFIXED = ("detector", "secret", "signing", "policy")
"""Sections whose flags carry their name: `--detector-side`; the others' leaves are clear alone: `--k`."""


@dataclass(frozen=True)
class Key:
    """A key: its dotted `path`, its `flag` or None, the `type` of a value (of one, if it has `many`), and its help."""

    path: str
    flag: str | None
    type: Any
    many: bool
    required: bool
    default: Any
    description: str


def keys(model: type[BaseModel] = JobConfig, section: str = "") -> Iterator[Key]:
    """All keys of the job file in the order of their declaration."""
    for name, field in model.model_fields.items():
        path, kind = f"{section}.{name}".removeprefix("."), without_none(field.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys(kind, path)
            continue
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        flag = None if get_origin(kind) is dict else str(extra.get("flag") or _flag(section, name, kind))
        many = get_origin(kind) is tuple
        value = get_args(kind)[0] if many else kind
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        yield Key(path, flag, value, many, field.is_required(), default, field.description or "")


def without_none(kind: Any) -> Any:
    """`X` of `X | None`."""
    return next(part for part in get_args(kind) if part is not NoneType) if NoneType in get_args(kind) else kind


def _flag(section: str, name: str, kind: Any) -> str:
    """`--method` of method.name, `--input` of input.uri, `--detector-side`, `--k`; of a list the singular."""
    if name in ("uri", "name"):
        return f"--{section}"
    name = name.removesuffix("s") if get_origin(kind) is tuple else name
    flag = (f"{section}-{name}" if section in _PREFIXED else name).replace("_", "-")
    return f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"
