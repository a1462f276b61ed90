"""The release says what was done to every image, and nothing by which a person could be found again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from anonlib.stages import render
from anonlib.workspace.schemas import CERTIFIED, MANIFEST, RESTRICTED_COLUMNS
from tests.support import photos
from tests.support.runs import Run, every_byte, images, manifest, run_job, tables


def columns(schema: pa.Schema | pa.DataType) -> set[str]:
    """Every field's name, nested ones too."""
    if isinstance(schema, pa.ListType | pa.FixedSizeListType):
        return columns(schema.value_type)
    fields = list(schema) if isinstance(schema, pa.Schema | pa.StructType) else []
    return set().union(*({field.name} | columns(field.type) for field in fields))


def test_no_restricted_column_is_in_a_released_schema(finished: Run) -> None:
    assert {"box", "fallback", "surrogate_digest"} <= columns(MANIFEST)
    for schema in (MANIFEST, *CERTIFIED.values()):
        assert not columns(schema) & RESTRICTED_COLUMNS
    for path, file in tables(finished.output):
        assert file.schema_arrow.equals(MANIFEST if path.startswith("manifest/") else CERTIFIED[path]), path


def test_a_manifest_face_is_the_same_for_all_faces_of_its_surrogate(finished: Run) -> None:
    """A figure or a reason that depended on the face would tell whose it was (REVIEW-claims, finding 2)."""
    assert set(columns(MANIFEST)).isdisjoint({"similarity", "to_source", "score", "mask_coverage"})
    said: dict[str, set[tuple[object, ...]]] = {}
    for row in manifest(finished.output):
        for face in row["faces"]:
            assert all(isinstance(side, int) for side in face.pop("box"))
            face.pop("detected_again")  # of the picture that is published
            said.setdefault(face["surrogate_digest"] or "", set()).add(tuple(face.values()))
    assert len(said) >= 2 and all(len(words) == 1 for words in said.values())


def test_no_plain_digest_of_an_original_is_in_the_release(finished: Run) -> None:
    release = every_byte(finished.output)
    for path in finished.input.glob("*.tar"):
        for name, data in [*images(path).items(), (path.name, path.read_bytes())]:
            for algorithm in ("sha256", "md5", "sha1"):
                digest = hashlib.new(algorithm, data)
                assert digest.hexdigest().encode() not in release, name
                assert digest.digest() not in release, name


def test_no_label_and_no_field_that_was_not_asked_for_is_in_the_release(finished: Run) -> None:
    source, release = every_byte(finished.input), every_byte(finished.output)
    for secret in (b"Ada-Quill", b"52.5163", b'"person"'):
        assert secret in source and secret not in release
    sidecar = images(finished.output / "data" / "00000.tar")["holiday-000.json"]
    assert json.loads(sidecar) == {"caption": "photo 0"}


def test_the_run_note_names_no_place(finished: Run) -> None:
    note = (finished.output / "run.json").read_text()
    assert json.loads(note)["shards"] == ["00000", "00001", "00002"]
    for place in (finished.input, finished.workspace, finished.output, Path.home()):
        assert str(place) not in note


def test_with_new_keys_a_lost_shard_does_not_name_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos.tar(tmp_path / "input" / "0.tar", [("Ada Quill.jpg", photos.jpeg(photos.nobody()))])

    def never(*_: Any) -> Any:
        raise ValueError("Cannot read /photos/Ada Quill.jpg: injected.")

    monkeypatch.setattr(render.RenderStage, "_publish", never)
    run = run_job(tmp_path / "input", tmp_path, method={"name": "solid"}, rekey=True)
    (row,) = manifest(run.output)
    assert row["reason"] == "shard-failed"
    assert "Ada Quill.jpg: injected" in (tmp_path / "workspace" / "failures" / "render" / "0.txt").read_text()
    assert b"Ada" not in every_byte(run.output) and b"Quill" not in every_byte(run.output)
