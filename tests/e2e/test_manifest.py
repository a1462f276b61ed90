"""The release says what was done to every image, and nothing by which a person could be found again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonlib.job import Job
from anonlib.stages import render
from anonlib.workspace.layout import json_bytes, open_stores, render_store
from anonlib.workspace.schemas import CERTIFIED, MANIFEST, RESTRICTED_COLUMNS
from tests.support import photos
from tests.support.runs import Run, by_key, contents, every_byte, images, manifest, reasons, released, run_job, tables


def columns(schema: pa.Schema | pa.DataType) -> set[str]:
    """Every field's name, nested ones too."""
    found = set()
    fields = [schema.field(index) for index in range(len(schema.names))] if isinstance(schema, pa.Schema) else []
    if isinstance(schema, pa.DataType) and pa.types.is_struct(schema):
        fields = [schema.field(index) for index in range(schema.num_fields)]
    if isinstance(schema, pa.DataType) and (pa.types.is_list(schema) or pa.types.is_fixed_size_list(schema)):
        return columns(schema.value_type)
    for field in fields:
        found |= {field.name} | columns(field.type)
    return found


def test_the_walk_sees_nested_columns() -> None:
    assert {"box", "fallback", "surrogate_digest"} <= columns(MANIFEST)


def test_the_schema_is_the_documented_one(finished: Run) -> None:
    for path, file in tables(finished.output):
        assert file.schema_arrow.equals(MANIFEST if path.startswith("manifest/") else CERTIFIED[path]), path


def test_no_restricted_column_is_in_a_released_schema(finished: Run) -> None:
    for schema in (MANIFEST, *CERTIFIED.values()):
        assert not columns(schema) & RESTRICTED_COLUMNS
    for path, file in tables(finished.output):
        assert not columns(file.schema_arrow) & RESTRICTED_COLUMNS, path


def test_keys_and_order_are_the_inputs(finished: Run) -> None:
    for path in sorted(finished.input.glob("*.tar")):
        keys = [name.partition(".")[0] for name in images(path) if name.endswith(".jpg")]
        rows = pq.read_table(finished.output / "manifest" / f"{path.stem}.parquet").to_pylist()
        assert [row["key"] for row in rows] == keys
        out = [name for name in images(finished.output / "data" / path.name) if name.endswith(".jpg")]
        assert out == [f"{key}.jpg" for key in keys]


def test_digests_are_those_of_the_files(finished: Run) -> None:
    data = released(finished.output)
    for row in manifest(finished.output):
        assert hashlib.sha256(data[row["key"]]).hexdigest() == row["output_sha256"]
        size = photos.decoded(data[row["key"]]).shape[:2]
        assert size == (row["height"], row["width"])
    for path in (finished.output / "commits").glob("*.json"):
        marker = json.loads(path.read_text())
        found = contents(finished.output)
        assert all(found[name] == digest for name, digest in marker["files"].items())
        assert found[f"manifest/{marker['shard']}.parquet"] == marker["manifest_sha256"]


def test_every_replaced_face_names_what_was_done(finished: Run) -> None:
    faces = [face for row in manifest(finished.output) for face in row["faces"]]
    replaced = [face for face in faces if face["method"] == "k-diff"]
    assert len(replaced) > len(faces) // 4
    for face in faces:
        assert (face["method"] == "k-diff") == (face["surrogate_digest"] is not None) == (face["fallback"] is None)
    for face in replaced:
        assert face["k"] == finished.config.method.k and face["method_version"] and face["detected_again"] is not None


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


def test_what_was_measured_of_a_face_stays_in_the_workspace(finished: Run) -> None:
    stores = open_stores(finished.config)
    run = json.loads((finished.output / "run.json").read_text())
    for shard in run["shards"]:
        rendered = render_store(stores, run["run"]).faces(shard)
        for row in pq.read_table(finished.output / "manifest" / f"{shard}.parquet").to_pylist():
            for face, figures in zip(row["faces"], rendered.get(row["key"], ()), strict=True):
                assert (figures["method"], figures["fallback"]) == (face["method"], face["fallback"])
                assert bool(figures["reason"]) == (face["fallback"] is not None)
                assert {one["recognizer"] for one in figures["similarity"]} == (
                    {"faceres"} if face["fallback"] is None else set()
                )


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


@pytest.fixture(scope="module")
def rekeyed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A release with new keys, of inputs whose names are people's and whose troubles quote them."""
    root = tmp_path_factory.mktemp("rekeyed")
    good = photos.jpeg(photos.people(1, 1)[0][1])
    members: list[tuple[str, bytes]] = [
        ("Ada Quill/at sea.jpg", good),
        ("Ada Quill/at sea.json", json.dumps({"id": "at sea", "file_name": "Ada Quill/at sea.jpg"}).encode()),
        ("Ada Quill/cut.jpg", good[:3000]),
        ("Bruno's/twice.jpg", good),
        ("Frida.jpg", good),
        ("Bruno's/twice.jpg", good),
        ("../Carla.jpg", good),
        ("Dora.jpg", good),
        ("Dora.png", good),
    ]
    photos.tar(root / "input" / "00000.tar", members)
    half = photos.tar(root / "half.tar", [(f"Emil/{number}.jpg", good) for number in range(4)]).read_bytes()
    (root / "input" / "00001.tar").write_bytes(half[: len(half) // 2])
    return run_job(root / "input", root, method={"name": "solid"}, rekey=True, keep_fields=["id", "file_name"])


def test_with_new_keys_the_old_ones_are_nowhere(rekeyed: Run) -> None:
    release = every_byte(rekeyed.output)
    for part in (b"Ada", b"Quill", b"at sea", b"Bruno", b"twice", b"Carla", b"Dora", b"Emil", b"Frida"):
        assert part in every_byte(rekeyed.input)
        assert part not in release, part


def test_with_new_keys_a_reason_still_says_what_is_wrong(rekeyed: Run) -> None:
    found = {row["reason"] for row in manifest(rekeyed.output) if row["reason"]}
    assert found == {"damaged", "duplicate-key", "unsafe-name", "several-images", "truncated"}
    told = " | ".join(reasons(rekeyed.workspace).values())
    for part in ("damaged", "in this shard already", "leads out of its folder", "several images", "truncated"):
        assert part in told, told
    assert len(by_key(rekeyed.output)) == rekeyed.summary.images


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


def test_a_marker_says_no_more_than_it_should(finished: Run) -> None:
    for path in (finished.output / "commits").glob("*.json"):
        marker = json.loads(path.read_text())
        assert path.read_bytes() == json_bytes(marker)
        assert set(marker) == {
            "shard", "run", "files", "manifest_sha256", "images", "faces", "released", "no_face", "quarantined",
            "fallbacks",
        }  # fmt: skip
    assert Job(finished.config).summary() == finished.summary
