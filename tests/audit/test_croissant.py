"""croissant.json: mlcroissant finds no fault in it and reads the release by it, in every format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonlib.audit.croissant import CROISSANT, ReleaseFiles, describe, read_files
from anonlib.audit.findings import AuditReport
from anonlib.config import JobConfig
from anonlib.storage import open_storage
from anonlib.workspace.schemas import MANIFEST, RESTRICTED_COLUMNS
from tests.support import findings, photos

# rdflib and pandas warn of what mlcroissant asks of them, and mlcroissant leaves files to be closed by chance.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)

KEYS = ("holiday-000", "holiday-001")
FORMATS: tuple[str, ...] = ("webdataset", "parquet", "folder")


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """mlcroissant unpacks into a folder that it settles when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROISSANT_CACHE", str(tmp_path_factory.mktemp("croissant")))
        import mlcroissant  # noqa: F401

        yield


def job(**changes: Any) -> JobConfig:
    places = {name: {"uri": f"/nowhere/{name}"} for name in ("input", "output", "workspace")}
    return JobConfig.model_validate(places | changes)


def release(folder: Path, format: str) -> Path:
    """Two photos, one of them without a face, as a finished release keeps them."""
    pixels = photos.nobody()
    folder.mkdir(parents=True)
    (folder / "manifest").mkdir()
    (folder / "commits").mkdir()
    (folder / "data").mkdir()
    if format == "webdataset":
        photos.tar(
            folder / "data" / "a.tar",
            [member for key in KEYS for member in photos.members(key, pixels, {"caption": f"of {key}"})],
        )
    elif format == "parquet":
        image = pa.array([{"bytes": photos.jpeg(pixels), "path": None} for _ in KEYS])
        table = pa.table({"key": list(KEYS), "image": image, "caption": [f"of {key}" for key in KEYS], "stars": [3, 4]})
        pq.write_table(table, folder / "data" / "a.parquet")
    else:
        for key in KEYS:
            (folder / "data" / f"{key}.jpg").write_bytes(photos.jpeg(pixels))
    ending = ".jpg" if format == "folder" else ""
    faces = [{"box": [1, 2, 30, 40], "method": "k-diff", "k": 5}, {"box": [1, 2, 30, 40], "method": "solid"}]
    rows = [
        {"key": key + ending, "status": "released", "metadata_stripped": ["EXIF"], "notes": [], "faces": found}
        for key, found in zip(KEYS, (faces, []), strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows, MANIFEST), folder / "manifest" / "a.parquet")

    def digests(sub: str) -> dict[str, str]:
        return {
            f"{sub}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / sub).iterdir()
        }

    marker = {"shard": "a", "files": digests("data"), "manifest_sha256": digests("manifest")["manifest/a.parquet"]}
    (folder / "commits" / "a.json").write_text(json.dumps(marker))
    (folder / "run.json").write_text("{}")
    return folder


def described(folder: Path, format: str) -> dict[str, Any]:
    files = read_files(open_storage(str(folder)), ["a"], format)
    document = describe(findings.report(), job(keep_fields=["caption"]), files)
    (folder / CROISSANT).write_text(json.dumps(document))
    return document


def records(folder: Path, of: str) -> list[dict[str, Any]]:
    import mlcroissant

    dataset = mlcroissant.Dataset(jsonld=str(folder / CROISSANT))
    assert not dataset.metadata.ctx.issues.errors
    return list(dataset.records(of))


@pytest.mark.parametrize("format", FORMATS)
def test_mlcroissant_reads_photos_and_manifest_by_the_same_key(tmp_path: Path, format: str) -> None:
    folder = release(tmp_path / "release", format)
    described(folder, format)
    images, manifest = records(folder, "images"), records(folder, "manifest")
    keys = [record["images/key"] for record in images]
    assert keys == [record["manifest/key"] for record in manifest]
    assert all(record["images/image"].size == photos.nobody().shape[1::-1] for record in images)
    assert [[face["manifest/faces/method"] for face in record["manifest/faces"]] for record in manifest] == [
        [b"k-diff", b"solid"],
        [],
    ]
    assert [face["manifest/faces/k"] for face in manifest[0]["manifest/faces"]] == [5, None]
    assert manifest[0]["manifest/faces"][0]["manifest/faces/box"] == [1.0, 2.0, 30.0, 40.0]
    assert manifest[0]["manifest/metadata_stripped"] == [b"EXIF"]
    if format == "parquet":
        assert (images[0]["images/caption"], images[0]["images/stars"]) == (b"of holiday-000", 3)


def test_a_changed_shard_is_noticed(tmp_path: Path) -> None:
    folder = release(tmp_path / "release", "webdataset")
    described(folder, "webdataset")
    with (folder / "data" / "a.tar").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(Exception, match="Download") as raised:
        records(folder, "images")
    assert "is not identical with the reference" in str(raised.value.__cause__)


@pytest.mark.parametrize("format", FORMATS)
def test_every_file_has_its_hash_and_no_restricted_column_a_field(tmp_path: Path, format: str) -> None:
    folder = release(tmp_path / "release", format)
    document = described(folder, format)
    hashed = {file["@id"]: file["sha256"] for file in document["distribution"] if file["@type"] == "cr:FileObject"}
    for path, digest in hashed.items():
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == digest
    data = set() if format == "folder" else {f"data/a.{'tar' if format == 'webdataset' else 'parquet'}"}
    assert set(hashed) == data | {"manifest/a.parquet", "run.json"}
    named = json.dumps(document["recordSet"])
    assert not [name for name in RESTRICTED_COLUMNS if f'/{name}"' in named]


def simple(report: AuditReport, **changes: Any) -> dict[str, Any]:
    files = ReleaseFiles("application/x-tar", {"data/a.tar": "0" * 64}, {"manifest/a.parquet": "1" * 64}, {})
    return describe(report, job(**changes), files)


def test_responsible_ai_fields_hold_the_figures() -> None:
    fields = simple(findings.report(), keep_fields=["stars", "caption"], rekey=True)
    assert fields["rai:dataCollectionMissingData"].startswith("12 of 4,054 images are left out")
    risks = [text.split(":")[0] for text in fields["rai:personalSensitiveInformation"]]
    assert risks == ["Singling out", "Linkability", "Inference"]
    assert any("faces found again by gender: from male" in bias for bias in fields["rai:dataBiases"])
    assert {"Other fields kept: caption and stars.", "Keys were replaced by pseudonyms."} <= set(
        fields["rai:dataPreprocessingProtocol"]
    )
    assert fields["rai:machineAnnotationTools"] == ["centerface (detector; MIT)"]
    failing = simple(findings.report(passed=False))
    assert "trained attack, rank-1 by fr-feature" in failing["rai:dataLimitations"][0]
    assert "does NOT hold" in failing["description"]
    assert simple(findings.report(attacks=(), utility=()))["rai:dataBiases"] == ["How groups differ was not measured."]
