"""croissant.json: the release described for machines (Croissant 1.0), with the report's figures as RAI fields.

The vocabularies are MLCommons' (https://docs.mlcommons.org/croissant/docs/croissant-spec.html and croissant-rai-spec).
Paths are relative to the release. Nothing is fetched and there is no clock; terms, authors and dates, which only the
publisher knows, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anonlib.audit.findings import AuditReport
from anonlib.audit.report import summary
from anonlib.audit.report.tables import grouped
from anonlib.config import JobConfig
from anonlib.datasets import DATASETS, format_of
from anonlib.datasets.names import IMAGE_EXTENSIONS, IMAGE_TYPES, suffix_of
from anonlib.storage import Storage
from anonlib.workspace.layout import RUN_NOTE, ReleaseStore, sha256
from anonlib.workspace.schemas import MANIFEST, manifest_path

if TYPE_CHECKING:
    import pyarrow as pa

CROISSANT = "croissant.json"
_PARQUET = "application/x-parquet"
_TYPES = {"json": "application/json", "parquet": _PARQUET}
_TERMS = """
    citeAs column conformsTo data dataType equivalentProperty examples extract field fileProperty fileObject fileSet
    format includes isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace
    samplingRate separator source subField transform
"""
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    **{term: f"cr:{term}" for term in _TERMS.split()},
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
}

Node = dict[str, Any]


@dataclass(frozen=True)
class ReleaseFiles:
    """Paths in the release with their sha256: the data's, the manifests', and others.

    `media_type`: of a data file, None where data files are images. `schema`: of the data files, None unless Parquet.
    """

    media_type: str | None
    data: Mapping[str, str]
    manifests: Mapping[str, str]
    others: Mapping[str, str]
    schema: pa.Schema | None = None


def read_files(release: Storage, shards: Iterable[str], format: str, others: Iterable[str] = ()) -> ReleaseFiles:
    """What the markers of `shards` vouch for, with run.json and the `others` hashed now. Raises StorageError."""
    import pyarrow.parquet as pq

    data: dict[str, str] = {}
    manifests: dict[str, str] = {}
    for marker in ReleaseStore(release).markers(shards):
        data |= marker["files"]
        manifests[manifest_path(marker["shard"])] = marker["manifest_sha256"]
    hashed = {path: sha256(release.read(path)) for path in (RUN_NOTE, *others)}
    media_type, schema = DATASETS[format].media_type, None
    if media_type == _PARQUET and data:
        with release.open_read(min(data), seekable=True) as stream:
            schema = pq.read_schema(stream)
    return ReleaseFiles(media_type, data, manifests, hashed, schema)


def describe(report: AuditReport, config: JobConfig, files: ReleaseFiles) -> Node:
    """The JSON-LD; the same for the same arguments."""
    counts = report.counts
    manifest = [_column("manifest-files", "manifest", field.name, field.type) for field in MANIFEST]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": report.release,
        "description": (
            f"{counts.images - counts.quarantined:,} photographs with their faces replaced by {report.method} (anonlib "
            f"{report.software.get('anonlib', '')}). Claim: {report.claim.text.rstrip('.')}. The policy of the audit "
            f"{'holds' if report.gate.passed else 'does NOT hold'}; see report.html."
        ),
        **_responsible_ai(report, config),
        "distribution": _distribution(files),
        "recordSet": [_images(files), _record_set("manifest", manifest) | {"key": {"@id": "manifest/key"}}],
    }


# ---- responsible AI (Croissant RAI 1.0) -----------------------------------------------------------------------


def _responsible_ai(report: AuditReport, config: JobConfig) -> Node:
    counts, kept = report.counts, summary.listed(config.keep_fields)
    reasons = summary.listed(f"{reason}: {images:,}" for reason, images in summary.by_size(counts.quarantine_reasons))
    left_out = f"{counts.quarantined:,} of {summary.counted(counts.images, 'image')} are left out"
    return {
        "rai:dataCollectionMissingData": f"{left_out}{f' ({reasons})' if reasons else ''}.",
        "rai:dataPreprocessingProtocol": [
            f"Faces were replaced by {report.method} ({summary.settings(report)}).",
            "Metadata of the images was removed, but for colour profiles.",
            f"Other fields kept: {kept or 'none'}.",
            "Keys were replaced by pseudonyms." if config.rekey else "Keys are those of the input.",
        ],
        "rai:machineAnnotationTools": [
            f"{model.name} ({model.role}; {model.licence})" for model in report.models if model.used_for == "release"
        ],
        "rai:dataBiases": _biases(report) or ["How groups differ was not measured."],
        "rai:dataLimitations": [
            *(f"The policy does not hold: {line.name}, {line.why}." for line in summary.failed_lines(report)),
            *summary.missed_faces(report),
        ],
        "rai:personalSensitiveInformation": [
            f"{risk.title}: {' '.join(risk.sentences)}" for risk in summary.risks(report)
        ],
    }


def _biases(report: AuditReport) -> list[str]:
    """Of each measure and attack whose groups are known: the lowest and the highest of each kind of group."""
    sentences = []
    for what, unit, groups in grouped(report):
        for kind in dict.fromkeys(group.by for group in groups):
            measured = [group for group in groups if group.by == kind and group.figure.value is not None]
            ordered = sorted(measured, key=lambda group: group.figure.value or 0.0)
            texts = [f"{group.name} {summary.figure_text(group.figure, unit)}" for group in ordered]
            if len(texts) > 1:
                sentences.append(f"{what} by {kind}: from {texts[0]} to {texts[-1]}.")
    return sentences


# ---- files ----------------------------------------------------------------------------------------------------


def _distribution(files: ReleaseFiles) -> list[Node]:
    objects = {**files.manifests, **files.others}
    images = sorted({IMAGE_TYPES[suffix] for path in files.data if (suffix := suffix_of(path)) in IMAGE_TYPES})
    if files.media_type is None:
        # Each photo's sha256 is in the manifest.
        data = _file_set("image-files", ["data/*"], images or ["image/jpeg"])
    elif files.schema is not None:
        objects |= files.data
        data = _file_set("data-files", ["data/*.parquet"], [_PARQUET])
    else:
        objects |= files.data
        members = [f"*.{extension}" for extension in sorted(IMAGE_EXTENSIONS)]
        data = _file_set("image-files", members, sorted(set(IMAGE_TYPES.values())))
        data["containedIn"] = [{"@id": path} for path in sorted(files.data)]
    return [
        *(_file_object(path, digest) for path, digest in sorted(objects.items())),
        data,
        _file_set("manifest-files", ["manifest/*.parquet"], [_PARQUET]),
    ]


def _file_object(path: str, digest: str) -> Node:
    format = format_of(path)
    media_type = (DATASETS[format].media_type if format else None) or _TYPES.get(suffix_of(path))
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "encodingFormat": media_type or "application/octet-stream",
        "sha256": digest,
    }


def _file_set(name: str, includes: list[str], types: list[str]) -> Node:
    return {"@type": "cr:FileSet", "@id": name, "name": name, "includes": includes, "encodingFormat": types}


# ---- records --------------------------------------------------------------------------------------------------


def _record_set(name: str, fields: list[Node]) -> Node:
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields}


def _images(files: ReleaseFiles) -> Node:
    """A record for each photo: its key, which is the manifest's, and pixels, or every column of a Parquet file."""
    if files.schema is not None:
        columns = [_column("data-files", "images", field.name, field.type) for field in files.schema]
        return _record_set("images", columns)
    key = {"transform": {"regex": r"^data/(.*)$" if files.media_type is None else r"^((?:.*/)?[^/.]+)\."}}
    path, content = (
        {"fileSet": {"@id": "image-files"}, "extract": {"fileProperty": name}} for name in ("fullpath", "content")
    )
    fields = [_field("images/key", "sc:Text", path | key), _field("images/image", "sc:ImageObject", content)]
    return _record_set("images", fields)


def _column(file_set: str, record_set: str, name: str, kind: pa.DataType) -> Node:
    """A column as a field; a list of structs gets a sub-field for each of their fields."""
    import pyarrow as pa

    source = {"fileSet": {"@id": file_set}, "extract": {"column": name}}
    path = f"{record_set}/{name}"
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    inner = kind.value_type if is_list else kind
    if pa.types.is_struct(inner) and is_list:
        below = [
            _field(f"{path}/{part.name}", _data_type(part.type), source | {"transform": {"jsonPath": f"$.{part.name}"}})
            for part in inner
        ]
        return {"@type": "cr:Field", "@id": path, "name": path, "repeated": True, "subField": below}
    if pa.types.is_struct(inner) and inner.get_field_index("bytes") >= 0:
        return _field(path, "sc:ImageObject", source | {"transform": {"jsonPath": "$.bytes"}})
    return _field(path, _data_type(inner), source) | ({"repeated": True} if is_list else {})


def _field(name: str, kind: str, source: Node) -> Node:
    return {"@type": "cr:Field", "@id": name, "name": name, "dataType": kind, "source": source}


def _data_type(kind: pa.DataType) -> str:
    import pyarrow as pa

    if hasattr(kind, "value_type"):
        kind = kind.value_type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "sc:ImageObject"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"
