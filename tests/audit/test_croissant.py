"""croissant.json: mlcroissant finds no fault in it and reads the release by it, in every format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from anonlib.audit.croissant import CROISSANT, dataset_card, describe, responsible_ai
from anonlib.storage import open_storage
from anonlib.workspace.schemas import RESTRICTED_COLUMNS
from tests.support import findings, photos
from tests.support.runs import job, run_job

# rdflib and pandas warn of what mlcroissant asks of them, and mlcroissant leaves files to be closed by chance.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
PICTURES = {"photo-0": photos.astronaut(), "photo-1": photos.nobody()}


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """mlcroissant unpacks into a folder that it settles when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROISSANT_CACHE", str(tmp_path_factory.mktemp("croissant")))
        import mlcroissant  # noqa: F401

        yield


def put_dataset(folder: Path, format: str) -> None:
    """Two photos, one of them without a face."""
    folder.mkdir()
    if format == "webdataset":
        photos.tar(folder / "a.tar", [part for key, rgb in PICTURES.items() for part in photos.members(key, rgb, {})])
    elif format == "parquet":
        image = pa.array([{"bytes": photos.jpeg(rgb), "path": None} for rgb in PICTURES.values()])
        table = pa.table({"key": list(PICTURES), "image": image, "caption": ["of a", "of b"], "stars": [3, 4]})
        pq.write_table(table, folder / "a.parquet")
    else:
        for key, rgb in PICTURES.items():
            (folder / f"{key}.jpg").write_bytes(photos.jpeg(rgb))


@pytest.mark.parametrize("format", ["webdataset", "parquet", "folder"])
def test_mlcroissant_reads_photos_and_manifest_by_the_same_key(format: str, tmp_path: Path) -> None:
    import mlcroissant

    put_dataset(tmp_path / "input", format)
    run = run_job(tmp_path / "input", tmp_path, method={"name": "solid"}, keep_fields=["caption", "stars"])
    document = describe(findings.report(), run.config, open_storage(str(run.output)), format)
    (run.output / CROISSANT).write_text(json.dumps(document))
    dataset = mlcroissant.Dataset(jsonld=str(run.output / CROISSANT))
    assert not dataset.metadata.ctx.issues.errors
    images, manifest = (list(dataset.records(name)) for name in ("images", "manifest"))
    assert [record["images/key"] for record in images] == [record["manifest/key"] for record in manifest]
    sizes = [record["images/image"].size for record in images]
    assert sizes == [rgb.shape[1::-1] for rgb in PICTURES.values()]
    methods = [[face["manifest/faces/method"] for face in record["manifest/faces"]] for record in manifest]
    assert methods == [[b"solid"], []] and len(manifest[0]["manifest/faces"][0]["manifest/faces/box"]) == 4
    if format == "parquet":
        assert (images[0]["images/caption"], images[0]["images/stars"]) == (b"of a", 3)

    hashed = {file["@id"]: file["sha256"] for file in document["distribution"] if file["@type"] == "cr:FileObject"}
    assert hashed == {path: hashlib.sha256((run.output / path).read_bytes()).hexdigest() for path in hashed}
    data = 0 if format == "folder" else 1
    assert len(hashed) == data + 3 and {"run.json", "certificate.json"} < set(hashed)
    assert not [name for name in RESTRICTED_COLUMNS if f'/{name}"' in json.dumps(document["recordSet"])]


def test_responsible_ai_fields_hold_the_figures(tmp_path: Path) -> None:
    config = job(tmp_path / "input", tmp_path, keep_fields=["stars", "caption"], rekey=True)
    fields = responsible_ai(findings.report(), config)
    assert fields["rai:dataCollectionMissingData"].startswith("12 of 4,054 images are left out")
    risks = [text.split(":")[0] for text in fields["rai:personalSensitiveInformation"]]
    assert risks == ["Singling out", "Linkability", "Inference"]
    assert any("rank-1 (faceres) by gender: from male" in bias for bias in fields["rai:dataBiases"])
    protocol = set(fields["rai:dataPreprocessingProtocol"])
    assert {"Other fields kept: caption and stars.", "Keys were replaced by pseudonyms."} <= protocol
    assert fields["rai:machineAnnotationTools"] == ["centerface (detector; MIT)"]
    failing = responsible_ai(findings.report(passed=False, attacks=(), utility=()), config)
    assert "trained attack, rank-1 by faceres" in failing["rai:dataLimitations"][0]
    assert failing["rai:dataBiases"] == ["How groups differ was not measured."]


@pytest.mark.parametrize(("images", "size"), [(12, "n<1K"), (4_054, "1K<n<10K"), (3_000_000_000, "n>1B")])
def test_the_hub_reads_the_card(images: int, size: str, tmp_path: Path) -> None:
    report = findings.report()
    counts = report.counts.model_copy(update={"images": images, "quarantined": 0})
    report = report.model_copy(update={"counts": counts, "release": "faces: of 2026\n---\n"})
    described = {"description": "Photographs.", **responsible_ai(report, job(tmp_path / "input", tmp_path))}
    card = DatasetCard(dataset_card(report, described, "webdataset"))
    assert card.data.size_categories == [size] and card.data.pretty_name == report.release
    assert card.data.to_dict()["configs"] == [{"config_name": "default", "data_files": "data/**/*.tar*"}]
    assert "Singling out" in card.text and "Other fields kept: caption." in card.text and "12 of" not in card.text
    assert card.text.count("\n## ") == 7
