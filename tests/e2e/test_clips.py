"""Clips beside stills: one person gets one face, no frame shows the original's, a kill changes no byte, and what is
changed afterwards is caught."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonlib.audit.leaks.images import PART
from anonlib.audit.leaks.scan import LEFT, WHOLE, scan_leaks
from anonlib.audit.missed_faces import look_twice
from anonlib.audit.report.page import draw, draw_examples
from anonlib.errors import VerificationError
from anonlib.faces.original import face_core, is_original
from anonlib.job import Job
from anonlib.review.page import describe
from anonlib.review.session import Session
from anonlib.storage import open_storage
from anonlib.verification import certificate
from anonlib.verification.conditions import ReleaseCounter, claim_table
from anonlib.verification.release import verify
from anonlib.workspace.layout import open_stores
from anonlib.workspace.schemas import CLIP, RELEASED, STILL, WITHHELD
from tests.support import clips, photos, runs

FRAMES = 12
SOLID = {"name": "solid"}
SAMPLING = {"name": "sampling", "texture": "gallery"}


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.moving_face(tmp_path_factory.mktemp("clip") / "walk.mp4", FRAMES, tags={"title": "Eileen"})


def as_folder(root: Path, clip: Path) -> Path:
    root.mkdir()
    shutil.copy(clip, root / "walk.mp4")
    (root / "still.jpg").write_bytes(photos.jpeg(photos.astronaut()))
    return root


def as_shard(root: Path, clip: Path) -> Path:
    root.mkdir()
    photos.tar(root / "0.tar", [("a.jpg", photos.jpeg(photos.astronaut())), ("b.mp4", clip.read_bytes())])
    return root


def released_clip(output: Path, to: Path) -> Path:
    """The clip of a release as a file."""
    tars = list((output / "data").glob("*.tar"))
    if not tars:
        return output / "data" / "walk.mp4"
    to.write_bytes(photos.content_of(tars[0])["b.mp4"])
    return to


def rows_of(output: Path) -> dict[str, dict[str, Any]]:
    return {row["media"]: row for row in runs.manifest(output)}


@pytest.fixture(scope="module")
def done(moving: Path, tmp_path_factory: pytest.TempPathFactory) -> runs.Run:
    """A finished redaction of a tar with a still and a clip."""
    root = tmp_path_factory.mktemp("finished")
    return runs.run_job(as_shard(root / "in", moving), root, method=SOLID)


@pytest.mark.parametrize("drawn", [False, True], ids=["a tar, solid", "a folder, sampling"])
def test_no_frame_of_a_clip_shows_the_face_and_its_release_verifies(
    drawn: bool, done: runs.Run, moving: Path, tmp_path: Path
) -> None:
    if drawn:
        source = as_folder(tmp_path / "in", moving)
        done = runs.run_job(source, tmp_path, method=SAMPLING, input={"uri": str(source)})
    assert done.summary.released == 2
    output = done.output
    found = verify(open_storage(str(output)))
    assert (found.certificate.counts.clips, found.certificate.counts.frames) == (1, FRAMES)
    rows = rows_of(output)
    clip, (face,) = rows[CLIP], rows[CLIP]["faces"]
    assert (clip["status"], clip["frames"], clip["rate"], clip["seconds"]) == (RELEASED, FRAMES, "12/1", 1.0)
    assert (face["first"], face["last"], face["hidden"]) == (0, FRAMES - 1, 0)
    assert rows[STILL]["frames"] is None
    # One person in both, by one surrogate.
    assert face["surrogate_digest"] == rows[STILL]["faces"][0]["surrogate_digest"]
    check_hidden(moving, released_clip(output, tmp_path / "out.mp4"), face)


def check_hidden(source: Path, released: Path, face: dict[str, Any]) -> None:
    """No frame of a released clip shows the px of its only face."""
    for before, after in zip(clips.frames_of(source), clips.frames_of(released), strict=True):
        box = np.array(face["boxes"][4 * before.index : 4 * before.index + 4], np.float32)
        inner = np.concatenate([box[:2] * 0.75 + box[2:] * 0.25, box[:2] * 0.25 + box[2:] * 0.75])
        core = face_core(before.rgb.shape[:2], inner, None)
        assert before.time == after.time
        assert not is_original(before.rgb, after.rgb, core)
        assert abs(before.rgb.astype(int) - after.rgb)[core].mean() > 8


def test_animated_images_are_clips(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    kinds = {"gif": {"comment": b"Eileen"}, "png": {}, "webp": {"xmp": b"<x:xmpmeta>Eileen"}}
    for kind, words in kinds.items():
        clips.moving_face(tmp_path / "in" / f"walk.{kind}", FRAMES, **words)
    source = {"uri": str(tmp_path / "in")}
    config = runs.job(tmp_path / "in", tmp_path / "job", method=SAMPLING, input=source)
    assert Job(config).run().released == len(kinds)
    release = tmp_path / "job" / "release"
    assert verify(open_storage(str(release))).certificate.counts.frames == FRAMES * len(kinds)
    rows = runs.manifest(release)
    assert {row["format"]: row["metadata_stripped"] for row in rows} == {"gif": ["comment"], "png": [], "webp": ["xmp"]}
    for row in rows:
        (face,) = row["faces"]
        assert (row["media"], row["frames"], row["rate"], row["seconds"]) == (CLIP, FRAMES, "25/2", 0.96)
        assert face["hidden"] < FRAMES and face["surrogate_digest"] == rows[0]["faces"][0]["surrogate_digest"]
        check_hidden(tmp_path / "in" / row["key"], release / "data" / row["key"], face)
    checks = scan_leaks(Job(config))
    assert {check.name: check.where for check in checks if check.found} == {}
    (note,) = [check.note for check in checks if check.name == LEFT]
    ratios = re.findall(r"([\d.]+) \(at most", note)
    assert f"of {len(kinds)} tracks" in note and len(ratios) == 2 and all(0 < float(ratio) < 3 for ratio in ratios)
    assert look_twice(Job(config))[1] == {}


@pytest.mark.parametrize("segment", [None, 1])
def test_a_run_that_is_killed_three_times_in_a_clip_ends_in_the_same_bytes(
    segment: int | None, moving: Path, tmp_path: Path
) -> None:
    long = clips.moving_face(tmp_path / "long.mp4", 25, options={"g": "12", "keyint_min": "12"})
    source = as_shard(tmp_path / "in", long if segment else moving)
    changes = {"method": SAMPLING, "input": {"uri": str(source)}, "clip": {"segment": segment}}
    Job(runs.job(source, tmp_path / "whole", **changes)).run()
    config = runs.job(source, tmp_path / "killed", **changes)
    steps = ("seen-1", "meshes-0", "painted-1") if segment else ("meshes", "clip", "clip")
    for number, step in enumerate(steps):
        place = tmp_path / f"temporary-{number}"
        place.mkdir()
        with runs.started(config, tmp_path / "driver", TMPDIR=str(place)) as job:
            within = tmp_path / "killed" if segment else place
            # Not Path.glob, which fails where a folder goes meanwhile.
            assert job.wait_for(lambda: glob(f"{within}/**/{step}", recursive=True))  # noqa: B023, PTH207
    Job(config).run()
    assert runs.contents(tmp_path / "killed" / "release") == runs.contents(tmp_path / "whole" / "release")
    if segment:
        (face,) = rows_of(tmp_path / "killed" / "release")[CLIP]["faces"]
        assert (face["first"], face["last"], face["hidden"]) == (0, 24, 0)
        check_hidden(long, released_clip(tmp_path / "killed" / "release", tmp_path / "out.mp4"), face)
        assert not list((tmp_path / "killed").glob("**/parts/**/*"))


def test_a_frame_that_cannot_be_decoded_never_passes(moving: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.mp4"
    data = bytearray(moving.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    damaged.write_bytes(data)
    source = as_shard(tmp_path / "in", damaged)
    Job(runs.job(source, tmp_path / "job", method=SOLID)).run()
    row = rows_of(tmp_path / "job" / "release")[CLIP]
    assert row["status"] == "quarantined" or row["frames"] < FRAMES


def test_an_audit_opens_clips_and_finds_nothing_in_them(done: runs.Run) -> None:
    checks = scan_leaks(Job(done.config))
    assert {check.name: check.where for check in checks if check.found} == {}
    (left,) = [check for check in checks if check.name == LEFT]
    assert left.checked > 2  # one still, and a frame of every half second
    assert look_twice(Job(done.config))[1] == {}
    assert len(draw_examples(done.config, "webdataset", faces=9)) == len(draw(open_stores(done.config), 9, 0)) > 0


def test_a_clip_with_a_tag_or_with_its_face_back_is_found(done: runs.Run, moving: Path, tmp_path: Path) -> None:
    release = Path(shutil.copytree(done.output, tmp_path / "release"))
    (path,) = (release / "data").glob("*.tar")
    members = photos.content_of(path) | {"b.mp4": moving.read_bytes()}
    photos.tar(path, list(members.items()))
    (table,) = (release / "manifest").glob("*.parquet")
    rows, schema = pq.read_table(table).to_pylist(), pq.read_schema(table)
    rows[-1]["output_sha256"] = hashlib.sha256(moving.read_bytes()).hexdigest()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), table)
    config = done.config.model_copy(update={"output": done.config.output.model_copy(update={"uri": str(release)})})
    found = {check.name for check in scan_leaks(Job(config)) if check.found}
    assert {LEFT, PART, WHOLE} <= found


def test_a_reviewer_sees_a_strip_of_a_clip_and_can_withhold_it(done: runs.Run, tmp_path: Path) -> None:
    config = runs.planned_copy(done, tmp_path, method=SOLID)
    shutil.copytree(done.output, tmp_path / "release")
    session = Session(config, sample=9)
    (number,) = [number for number, image in enumerate(session.images) if image.row["media"] == CLIP]
    assert session.allowed(number) == ("confirmed", "withhold")
    shown = describe(session, number)
    assert len(shown["faces"]) == FRAMES
    for kind in ("original", "released"):
        picture = photos.decoded(session.pictures.show(session.images[number], kind))
        assert picture.shape[:2] == shown["size"]
    session.decide(number, "withhold")
    session.apply()
    row = rows_of(tmp_path / "release")[CLIP]
    assert (row["status"], row["review"]) == ("quarantined", WITHHELD)
    assert verify(open_storage(str(tmp_path / "release"))).certificate.counts.frames == 0


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "fewer frames": (lambda row: row.update(frames=FRAMES - 1), "is in the frames 0 to 11 of a clip of 11"),
    "no frames": (lambda row: row.update(frames=None), "has None frames"),
    "another rate": (lambda row: row.update(rate="fast"), "has the rate fast"),
    "another medium": (lambda row: row.update(media="sound"), "which is no medium"),
    "a still": (lambda row: row.update(media=STILL), "a still has frames"),
    "a box less": (lambda row: row["faces"][0]["boxes"].pop(), "has 12 boxes, or another box"),
    "a box elsewhere": (lambda row: row["faces"][0].update(box=[0, 0, 1, 1]), "or another box than these"),
    "hidden too often": (lambda row: row["faces"][0].update(hidden=FRAMES + 1), "is in the frames"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_signed_row_that_contradicts_itself_is_caught(change: str, done: runs.Run) -> None:
    row = rows_of(done.output)[CLIP]
    alter, sentence = CHANGES[change]
    claim = certificate.Claim(certificate.NONE)
    ReleaseCounter("solid", claim_table(claim, [])).add_media(row)
    alter(row)
    with pytest.raises(VerificationError, match=sentence):
        ReleaseCounter("solid", claim_table(claim, [])).add_media(row)
