"""croissant.json: the release described for machines (Croissant 1.0), with the report's figures as RAI fields.

The vocabularies are MLCommons' (https://docs.mlcommons.org/croissant/docs/croissant-spec.html and croissant-rai-spec).
Paths are relative to the release. Nothing is fetched, and no time is written. Terms, authors and dates are left
out, since only the publisher knows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from anonlib.audit.findings import AuditReport
from anonlib.audit.report import summary
from anonlib.config import JobConfig
from anonlib.datasets import DATASETS, format_of
from anonlib.datasets.names import IMAGE_EXTENSIONS, IMAGE_TYPES, suffix_of
from anonlib.storage import Storage
from anonlib.workspace.layout import RUN_NOTE, ReleaseStore, sha256
from anonlib.workspace.schemas import CERTIFICATE, manifest_path, manifest_schema

CROISSANT = "croissant.json"
_PARQUET = "application/x-parquet"
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


def describe(report: AuditReport, config: JobConfig, release: Storage, format: str) -> Node:
    """The JSON-LD of a release whose shards have this format; hashes are its markers'. Raises StorageError."""
    counts = report.counts
    distribution, images = _files(release, format)
    columns = manifest_schema(config.hide)
    manifest = [_column("manifest-files", "manifest", field.name, field.type) for field in columns]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": report.release,
        "description": (
            f"{counts.images - counts.quarantined:,} photographs with their faces replaced by {report.method} (anonlib "
            f"{report.software.get('anonlib', '')}). Claim: {report.claim.text.rstrip('.')}. The policy of the audit "
            f"{'holds' if report.passed else 'does NOT hold'}; see report.html."
        ),
        **responsible_ai(report, config),
        "distribution": distribution,
        "recordSet": [
            _node("RecordSet", "images", field=images),
            _node("RecordSet", "manifest", field=manifest, key={"@id": "manifest/key"}),
        ],
    }


def responsible_ai(report: AuditReport, config: JobConfig) -> Node:
    """The fields of Croissant RAI 1.0, from the report's figures."""
    counts, kept = report.counts, summary.listed(config.keep_fields)
    reasons = summary.listed(f"{reason}: {images:,}" for reason, images in counts.quarantine_reasons.items())
    left_out = f"{counts.quarantined:,} of {summary.counted(counts.images, 'image')} are left out"
    biases = []
    for what, groups in summary.grouped(report):
        for kind, figures in groups.items():
            ordered = sorted(figures.items(), key=lambda pair: pair[1].value or 0.0)
            texts = [f"{name} {summary.figure_text(figure)}" for name, figure in ordered if figure.value is not None]
            biases += [f"{what} by {kind}: from {texts[0]} to {texts[-1]}."] if len(texts) > 1 else []
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
        "rai:dataBiases": biases or ["How groups differ was not measured."],
        "rai:dataLimitations": [
            *(f"The policy does not hold: {line.name}, {line.why}." for line in report.failed),
            *summary.missed_faces(report),
        ],
        "rai:personalSensitiveInformation": [
            f"{title}: {' '.join(sentences)}" for title, _, sentences in summary.risks(report)
        ],
    }


# ---- files and records ----------------------------------------------------------------------------------------


def _files(release: Storage, format: str) -> tuple[list[Node], list[Node]]:
    """The nodes of all files, and the fields of a photo's record: its key, which is the manifest's, and its pixels."""
    store, media_type = ReleaseStore(release), DATASETS[format].media_type
    hashes = {path: sha256(release.read(path)) for path in (RUN_NOTE, CERTIFICATE)}
    data: dict[str, str] = {}
    for marker in store.markers(store.run()["shards"]):
        data |= marker["files"]
        hashes[manifest_path(marker["shard"])] = marker["manifest_sha256"]
    if media_type == _PARQUET and data:
        with release.open_read(min(data), seekable=True) as stream:
            fields = [_column("data-files", "images", field.name, field.type) for field in pq.read_schema(stream)]
        photos = _node("FileSet", "data-files", includes=["data/*.parquet"], encodingFormat=[_PARQUET])
    else:
        if media_type is None:  # each photo is a file of its own, whose sha256 the manifest has
            key, includes, more = r"^data/(.*)$", ["data/*"], {}
            types = {IMAGE_TYPES[suffix_of(path)] for path in data if suffix_of(path) in IMAGE_TYPES} or {"image/jpeg"}
        else:
            key, includes = r"^((?:.*/)?[^/.]+)\.", [f"*.{extension}" for extension in sorted(IMAGE_EXTENSIONS)]
            types, more = set(IMAGE_TYPES.values()), {"containedIn": [{"@id": path} for path in sorted(data)]}
        photos = _node("FileSet", "image-files", includes=includes, encodingFormat=sorted(types), **more)
        name, content = (
            {"fileSet": {"@id": "image-files"}, "extract": {"fileProperty": part}} for part in ("fullpath", "content")
        )
        fields = [
            _node("Field", "images/key", dataType="sc:Text", source=name | {"transform": {"regex": key}}),
            _node("Field", "images/image", dataType="sc:ImageObject", source=content),
        ]
    hashes |= data if media_type is not None else {}
    files = []
    for path, digest in sorted(hashes.items()):
        kind = format_of(path)
        encoding = (DATASETS[kind].media_type if kind else None) or "application/json"
        files.append(_node("FileObject", path, contentUrl=path, encodingFormat=encoding, sha256=digest))
    manifests = _node("FileSet", "manifest-files", includes=["manifest/*.parquet"], encodingFormat=[_PARQUET])
    return [*files, photos, manifests], fields


def _column(file_set: str, record_set: str, name: str, kind: pa.DataType) -> Node:
    """A column as a field; a list of structs gets a sub-field for each of their fields."""
    path, source = f"{record_set}/{name}", {"fileSet": {"@id": file_set}, "extract": {"column": name}}
    inner = kind.value_type if _is_list(kind) else kind
    repeated = {"repeated": True} if _is_list(kind) else {}
    if pa.types.is_struct(inner) and repeated:
        parts = []
        for part in inner:
            transform = {"transform": {"jsonPath": f"$.{part.name}"}}
            kind_of_part = _data_type(part.type)
            parts.append(_node("Field", f"{path}/{part.name}", dataType=kind_of_part, source=source | transform))
        return _node("Field", path, repeated=True, subField=parts)
    if pa.types.is_struct(inner) and inner.get_field_index("bytes") >= 0:
        source |= {"transform": {"jsonPath": "$.bytes"}}
        return _node("Field", path, dataType="sc:ImageObject", source=source)
    return _node("Field", path, dataType=_data_type(inner), source=source, **repeated)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


_DATA_TYPES = (
    (pa.types.is_binary, "sc:ImageObject"),
    (pa.types.is_large_binary, "sc:ImageObject"),
    (pa.types.is_boolean, "sc:Boolean"),
    (pa.types.is_integer, "sc:Integer"),
    (pa.types.is_floating, "sc:Float"),
)


def _data_type(kind: pa.DataType) -> str:
    value = kind.value_type if _is_list(kind) else kind
    return next((name for test, name in _DATA_TYPES if test(value)), "sc:Text")


def _node(kind: str, name: str, **more: Any) -> Node:
    return {"@type": f"cr:{kind}", "@id": name, "name": name, **more}


# ---- the same for a reader, at the hub ----------------------------------------------------------------------------

CARD = "README.md"
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "n>1B")
_DATA = {"webdataset": "data/**/*.tar*", "parquet": "data/**/*.parquet", "folder": "data/**"}
_SECTIONS = {
    "How it was made": "rai:dataPreprocessingProtocol",
    "What is left out": "rai:dataCollectionMissingData",
    "What is left of the people": "rai:personalSensitiveInformation",
    "Limits": "rai:dataLimitations",
    "Differences between groups": "rai:dataBiases",
    "Networks that made it": "rai:machineAnnotationTools",
}
"""Headings, and the fields of croissant.json whose sentences stand below them."""
_VERIFY = """## Check it

`pip install anonlib`, then `anonlib verify FOLDER --key HEX` with the publisher's public key. `manifest/` says of each
image what became of its faces, `report.html` has every figure of the audit, and `anonlib export` writes labels from it.
"""


def dataset_card(report: AuditReport, croissant: Node, format: str) -> str:
    """The card of a release whose shards have this format; `croissant`: its description for machines."""
    images = report.counts.images - report.counts.quarantined
    size = next((size for power, size in enumerate(_SIZES) if images < 10 ** (power + 3)), _SIZES[-1])
    front = {
        "pretty_name": report.release,
        "size_categories": [size],
        "tags": ["anonymized", "faces", format],
        "configs": [{"config_name": "default", "data_files": _DATA[format]}],
    }
    body = [f"# {' '.join(report.release.split())}", str(croissant["description"]), *_sections(croissant), _VERIFY]
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n" + "\n\n".join(body)


def _sections(croissant: Node) -> Iterator[str]:
    for heading, field in _SECTIONS.items():
        sentences = croissant[field]
        yield f"## {heading}"
        yield sentences if isinstance(sentences, str) else "\n".join(f"- {sentence}" for sentence in sentences)
