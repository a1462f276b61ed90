"""croissant.json: the release described for machines (Croissant 1.0), with the report's figures as RAI fields.

The vocabularies are MLCommons' (https://docs.mlcommons.org/croissant/docs/croissant-spec.html and croissant-rai-spec).
Paths are relative to the release. Nothing is fetched and there is no clock: dates, terms and authors come from a
DatasetDescription.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anonlib.audit.findings import AuditReport
from anonlib.audit.report import summary
from anonlib.audit.report.tables import grouped
from anonlib.config import JobConfig
from anonlib.datasets.names import IMAGE_EXTENSIONS, suffix_of
from anonlib.storage import Storage
from anonlib.workspace.layout import RUN_NOTE, StageStore, sha256
from anonlib.workspace.schemas import MANIFEST

if TYPE_CHECKING:
    import pyarrow as pa

CROISSANT = "croissant.json"
CONFORMS_TO = ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"]

_TERMS = """
    citeAs column conformsTo data dataType equivalentProperty examples extract field fileProperty fileObject fileSet
    format includes isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace
    samplingRate separator source subField transform
"""
_MIME = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "bmp": "image/bmp",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "gif": "image/gif",
    "ppm": "image/x-portable-pixmap",
}
_PARQUET = "application/x-parquet"


@dataclass(frozen=True)
class DatasetDescription:
    """What no figure says; None is left out. `published` is an ISO date, `collection` how and why photos were taken."""

    description: str | None = None
    licence: str | None = None
    url: str | None = None
    published: str | None = None
    version: str | None = None
    cite_as: str | None = None
    creators: tuple[str, ...] = ()
    collection: str | None = None
    maintenance: str | None = None


@dataclass(frozen=True)
class ReleaseFiles:
    """Paths in the release with their sha256: the data's, the manifests', and others; `schema` is a data Parquet's."""

    format: str
    data: Mapping[str, str]
    manifests: Mapping[str, str]
    others: Mapping[str, str]
    schema: pa.Schema | None = None


def read_files(release: Storage, shards: Iterable[str], format: str, others: Iterable[str] = ()) -> ReleaseFiles:
    """What the markers of `shards` vouch for, with run.json and the `others` hashed now. Raises StorageError."""
    store = StageStore(release, "")
    data: dict[str, str] = {}
    manifests: dict[str, str] = {}
    for marker in store.markers(shards):
        data |= marker["files"]
        manifests[store.path("manifest", f"{marker['shard']}.parquet")] = marker["manifest_sha256"]
    hashed = {path: sha256(release.read(path)) for path in (RUN_NOTE, *others)}
    schema = _schema(release, min(data)) if format == "parquet" and data else None
    return ReleaseFiles(format, data, manifests, hashed, schema)


def _schema(release: Storage, path: str) -> pa.Schema:
    import pyarrow.parquet as pq

    with release.open_read(path, seekable=True) as stream:
        return pq.read_schema(stream)


def describe(
    report: AuditReport, config: JobConfig, files: ReleaseFiles, about: DatasetDescription | None = None
) -> dict[str, Any]:
    """The JSON-LD; the same for the same arguments."""
    about = about or DatasetDescription()
    document: dict[str, Any] = {
        "@context": _context(),
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": report.release,
        "description": about.description or _description(report),
        "license": about.licence,
        "url": about.url,
        "datePublished": about.published,
        "version": about.version,
        "citeAs": about.cite_as,
        "creator": [{"@type": "Organization", "name": name} for name in about.creators],
        **_responsible_ai(report, config, about),
        "distribution": _distribution(files),
        "recordSet": [_images(files), _manifest()],
    }
    return {name: value for name, value in document.items() if value not in (None, [])}


def _context() -> dict[str, Any]:
    plain = {term: f"cr:{term}" for term in _TERMS.split()}
    return {
        "@language": "en",
        "@vocab": "https://schema.org/",
        "cr": "http://mlcommons.org/croissant/",
        "dct": "http://purl.org/dc/terms/",
        "rai": "http://mlcommons.org/croissant/RAI/",
        "sc": "https://schema.org/",
        **plain,
        "conformsTo": "dct:conformsTo",
        "data": {"@id": "cr:data", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        "examples": {"@id": "cr:examples", "@type": "@json"},
    }


def _description(report: AuditReport) -> str:
    counts = report.counts
    return (
        f"{counts.images - counts.quarantined:,} photographs with their faces replaced by {report.method} (anonlib "
        f"{report.software.get('anonlib', '')}). Claim: {report.claim.text.rstrip('.')}. The policy of the audit "
        f"{'holds' if report.gate.passed else 'does NOT hold'}; see report.html."
    )


# ---- responsible AI (Croissant RAI 1.0) -----------------------------------------------------------------------


def _responsible_ai(report: AuditReport, config: JobConfig, about: DatasetDescription) -> dict[str, Any]:
    """The `rai:` fields; what only those who took the photos know is unknown unless `about` says it."""
    counts, kept = report.counts, summary.listed(config.keep_fields)
    reasons = summary.listed(f"{reason}: {images:,}" for reason, images in summary.by_size(counts.quarantine_reasons))
    left_out = f"{counts.quarantined:,} of {summary.counted(counts.images, 'image')} are left out"
    return {
        "rai:dataCollection": about.collection or "How and why the photographs were collected is not known to anonlib.",
        "rai:dataCollectionMissingData": f"{left_out}{f' ({reasons})' if reasons else ''}.",
        "rai:dataPreprocessingProtocol": [
            f"Faces were replaced by {report.method} ({summary.settings(report)}).",
            "Metadata of the images was removed, but for colour profiles.",
            f"Of the other fields {kept} were kept, and all the rest dropped."
            if kept
            else "All other fields were dropped.",
            "Keys were replaced by pseudonyms." if config.rekey else "Keys are those of the input.",
        ],
        "rai:machineAnnotationTools": [
            f"{model.name} ({model.role}; {model.licence})" for model in report.models if model.used_for == "release"
        ],
        "rai:dataBiases": _biases(report) or ["How groups differ was not measured."],
        "rai:dataLimitations": [
            *(f"The policy does not hold: {line.name}, {line.why}." for line in summary.failed_lines(report)),
            *summary.missed_faces(report),
            "Hair, clothes, background and body are as they were, and outside every claim.",
        ],
        "rai:personalSensitiveInformation": [
            f"{risk.title}: {' '.join(risk.sentences)}" for risk in summary.risks(report)
        ],
        "rai:dataReleaseMaintenancePlan": about.maintenance,
    }


def _biases(report: AuditReport) -> list[str]:
    """Of each measure and attack whose groups are known: the lowest and the highest of each kind of group."""
    sentences = []
    for what, unit, groups in grouped(report):
        for kind in dict.fromkeys(group.by for group in groups):
            measured = [group for group in groups if group.by == kind and group.figure.value is not None]
            ordered = sorted(measured, key=lambda group: group.figure.value or 0.0)
            if len(ordered) > 1:
                ends = " to ".join(
                    f"{group.name} {summary.figure_text(group.figure, unit)}" for group in (ordered[0], ordered[-1])
                )
                sentences.append(f"{what} by {kind}: from {ends}.")
    return sentences


# ---- files ----------------------------------------------------------------------------------------------------


def _distribution(files: ReleaseFiles) -> list[dict[str, Any]]:
    parts = [_file(path, digest) for path, digest in sorted({**files.manifests, **files.others}.items())]
    if files.format == "folder":
        # Each photo's sha256 is in the manifest.
        return [*parts, _file_set("image-files", ["data/*"], _image_types(files.data)), _manifests()]
    parts += [_file(path, digest) for path, digest in sorted(files.data.items())]
    if files.format == "parquet":
        return [*parts, _file_set("data-files", ["data/*.parquet"], [_PARQUET]), _manifests()]
    members = [f"*.{extension}" for extension in sorted(IMAGE_EXTENSIONS)]
    images = _file_set("image-files", members, sorted(set(_MIME.values())))
    return [*parts, images | {"containedIn": [{"@id": path} for path in sorted(files.data)]}, _manifests()]


def _file(path: str, digest: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "encodingFormat": _mime(path),
        "sha256": digest,
    }


def _mime(path: str) -> str:
    if path.lower().endswith((".tar", ".tar.gz", ".tgz")):
        return "application/x-tar"
    kinds = _MIME | {"parquet": _PARQUET, "json": "application/json", "html": "text/html", "pdf": "application/pdf"}
    return kinds.get(suffix_of(path), "application/octet-stream")


def _image_types(paths: Iterable[str]) -> list[str]:
    return sorted({_MIME[suffix] for path in paths if (suffix := suffix_of(path)) in _MIME}) or ["image/jpeg"]


def _file_set(name: str, includes: list[str], types: list[str]) -> dict[str, Any]:
    return {"@type": "cr:FileSet", "@id": name, "name": name, "includes": includes, "encodingFormat": types}


def _manifests() -> dict[str, Any]:
    return _file_set("manifest-files", ["manifest/*.parquet"], [_PARQUET])


# ---- records --------------------------------------------------------------------------------------------------


def _images(files: ReleaseFiles) -> dict[str, Any]:
    """A record for each photo: its key and pixels, and of Parquet every column that was kept."""
    if files.format == "parquet":
        fields = [_column("data-files", "images", field.name, field.type) for field in files.schema or ()]
        return {"@type": "cr:RecordSet", "@id": "images", "name": "images", "field": fields}
    key = r"^data/(.*)$" if files.format == "folder" else r"^((?:.*/)?[^/.]+)\."
    return {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "description": "One record a released photo; `key` is the manifest's.",
        "field": [
            _field(
                "images/key",
                "sc:Text",
                {
                    "fileSet": {"@id": "image-files"},
                    "extract": {"fileProperty": "fullpath"},
                    "transform": {"regex": key},
                },
            ),
            _field(
                "images/image",
                "sc:ImageObject",
                {"fileSet": {"@id": "image-files"}, "extract": {"fileProperty": "content"}},
            ),
        ],
    }


def _manifest() -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "manifest",
        "name": "manifest",
        "description": "One record an image that went in: what was found, what was done, and why anything is missing.",
        "key": {"@id": "manifest/key"},
        "field": [_column("manifest-files", "manifest", field.name, field.type) for field in MANIFEST],
    }


def _column(file_set: str, record_set: str, name: str, kind: pa.DataType) -> dict[str, Any]:
    """A column as a field; a list of structs gets a sub-field for each of their fields."""
    import pyarrow as pa

    source = {"fileSet": {"@id": file_set}, "extract": {"column": name}}
    path = f"{record_set}/{name}"
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    inner = kind.value_type if is_list else kind
    if pa.types.is_struct(inner) and is_list:
        below = [
            _field(
                f"{path}/{field.name}", _data_type(field.type), source | {"transform": {"jsonPath": f"$.{field.name}"}}
            )
            for field in inner
        ]
        return {"@type": "cr:Field", "@id": path, "name": path, "repeated": True, "subField": below}
    if pa.types.is_struct(inner) and inner.get_field_index("bytes") >= 0:
        return _field(path, "sc:ImageObject", source | {"transform": {"jsonPath": "$.bytes"}})
    return _field(path, _data_type(kind), source) | ({"repeated": True} if is_list else {})


def _field(name: str, kind: str, source: dict[str, Any]) -> dict[str, Any]:
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
