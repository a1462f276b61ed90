"""An original face is never released because something went wrong: faults injected into a real run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from anonlib import job as job_module
from anonlib.codes import Reason
from anonlib.config import JobConfig
from anonlib.faces.centerface import CenterFaceDetector
from anonlib.faces.mesh import FaceMesh, five_points
from anonlib.job import Job, Summary
from anonlib.media import exact
from anonlib.media.mark import PACKET, unmarked
from anonlib.methods import models_of
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import load_engine
from anonlib.stages import render as render_module
from anonlib.stages.render_state import OutputRecheck
from anonlib.synthesis import compositor
from anonlib.synthesis.compositor import Rendered
from anonlib.synthesis.redact import redact
from anonlib.workspace.schemas import NO_FACE, QUARANTINED, RELEASED
from tests.support import photos, runs
from tests.support.runs import Run, by_key, contents, images, job, manifest, reasons, released

SHARD, VICTIM = "00000", "holiday-003"


@pytest.fixture
def resumed(finished: Run, tmp_path: Path) -> JobConfig:
    """The victim's shard is all that is left to render."""
    return runs.rendered_but(finished, tmp_path, SHARD)


def in_shard(output: Path) -> dict[str, dict[str, Any]]:
    """The manifest of the victim's shard by key."""
    return {row["key"]: row for row in pq.read_table(output / "manifest" / f"{SHARD}.parquet").to_pylist()}


def originals(run: Run) -> dict[str, bytes]:
    found = {}
    for path in run.input.glob("*.tar"):
        found |= {name.partition(".")[0]: data for name, data in images(path).items() if name.endswith(".jpg")}
    return found


def run(config: JobConfig) -> tuple[Summary, Path]:
    return Job(config).run(), Path(config.output.uri)


def pixels_of(run: Run, key: str) -> photos.Pixels:
    return photos.decoded(originals(run)[key])


def only_the_victim_is_lost(summary: Summary, output: Path, clean: Run, reason: Reason, part: str = "injected") -> None:
    """The victim's row says why, the workspace in full, and every other image is as in a clean run."""
    rows, expected = by_key(output), by_key(clean.output)
    assert rows[VICTIM]["status"] == QUARANTINED and rows[VICTIM]["reason"] == reason, rows[VICTIM]
    assert part in reasons(output.parent / "workspace")[VICTIM]
    assert rows[VICTIM]["path"] is None and rows[VICTIM]["output_sha256"] is None
    assert VICTIM not in released(output)
    assert {key: row for key, row in rows.items() if key != VICTIM} == {
        key: row for key, row in expected.items() if key != VICTIM
    }
    assert summary.quarantined == 1 and summary.code == 3


def fails_on(victim: photos.Pixels, method: Callable[..., Any], pick: Callable[..., Any]) -> Callable[..., Any]:
    """`method`, raising whenever `pick` finds the victim among its arguments."""

    def wrapped(*arguments: Any, **named: Any) -> Any:
        for seen in pick(*arguments, **named):
            if seen.shape == victim.shape and np.array_equal(seen[:20], victim[:20]):
                raise RuntimeError("injected")
        return method(*arguments, **named)

    return wrapped


@pytest.mark.parametrize(
    ("home", "name", "pick", "reason"),
    [
        (compositor, "render", lambda image, *_: [image], Reason.REPLACE_FAILED),
        # The check runs over all faces of a chunk at once: the others must not be lost with the one.
        (OutputRecheck, "check", lambda _self, faces: [photo.rgb for photo, _ in faces], Reason.CHECK_FAILED),
        (exact, "as_stored", lambda pixels, _orientation: [pixels], Reason.ENCODE_FAILED),
    ],
)
def test_a_bug_loses_one_image_and_leaves_its_traceback_in_the_log(
    home: Any,
    name: str,
    pick: Callable[..., Any],
    reason: Reason,
    finished: Run,
    resumed: JobConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(home, name, fails_on(pixels_of(finished, VICTIM), getattr(home, name), pick))
    only_the_victim_is_lost(*run(resumed), finished, reason)
    assert "RuntimeError" in caplog.text and "in wrapped" in caplog.text and VICTIM not in caplog.text


def test_an_unchanged_face_is_covered(finished: Run, resumed: JobConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source's px are seen where they were, and what remains is filled from around them."""

    def unchanged(image: photos.Pixels, *arguments: Any) -> Rendered:
        return Rendered(image.copy(), np.ones(image.shape[:2], np.float32), (0, 0), 1.0)

    monkeypatch.setattr(compositor, "render", unchanged)
    summary, output = run(resumed)
    sources, outputs = originals(finished), released(output)
    before = in_shard(finished.output)
    covered = 0
    for key, row in in_shard(output).items():
        assert row["status"] == (RELEASED if row["faces"] else NO_FACE)
        for face in row["faces"]:
            covered += 1
            assert face["method"] == "fill" and face["fallback"] == "fill" and face["k"] is None
            assert face["surrogate_digest"] is None
            x0, y0, x1, y1 = face["box"]
            new, old = photos.decoded(outputs[key]), photos.decoded(sources[key])
            filled, beside = old.copy(), [other["box"] for other in row["faces"] if other is not face]
            redact(filled, np.array(face["box"], np.float32), "fill", np.array(beside, np.float32).reshape(-1, 4))
            inner = np.s_[max(y0, 0) + (y1 - y0) // 8 : y1 - (y1 - y0) // 8, max(x0, 0) + (x1 - x0) // 8 : x1]
            assert np.abs(new[inner].astype(int) - filled[inner]).mean() < 4, key
            assert np.abs(new[inner].astype(int) - old[inner]).mean() > 12
    assert covered == sum(len(row["faces"]) for row in before.values()) > 5
    elsewhere = [face for key, row in by_key(output).items() if key not in before for face in row["faces"]]
    assert summary.fallbacks == covered + sum(face["fallback"] == "fill" for face in elsewhere)
    assert summary.code == 0
    told = {row["reason"] for row in runs.rendered(output) if row["reason"]}
    assert told == {"every surrogate was tried, and the last left the source's px where they were"}


def test_no_face_is_refused_because_it_looks_like_its_surrogate(
    finished: Run, resumed: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal would tell the likeness: whatever the check finds, the bytes are the same."""
    check = OutputRecheck.check
    refused: list[Any] = []

    def all_refused(self: OutputRecheck, faces: Any) -> Any:
        check(self, faces)
        refused.extend(faces)
        return list(faces)

    monkeypatch.setattr(OutputRecheck, "check", all_refused)
    assert run(resumed)[0].code == 0
    assert refused and contents(Path(resumed.output.uri)) == contents(finished.output)


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_lost_surrogate_loses_its_images_and_no_others(finished: Run, resumed: JobConfig, damage: str) -> None:
    worn = [row for row in assignments(finished, SHARD) if row["surrogates"]]
    class_id = worn[0]["surrogates"][0]
    (path,) = Path(resumed.workspace.uri).glob(f"plan/*/surrogates/{class_id}.npz")
    first = {row["key"] for row in worn if row["surrogates"][0] == class_id}
    never = {row["key"] for row in in_shard(finished.output).values()} - {
        row["key"] for row in worn if class_id in row["surrogates"]
    }
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[:-2000])
    summary, output = run(resumed)
    rows, before = in_shard(output), in_shard(finished.output)
    lost = {key for key, row in rows.items() if row["status"] == QUARANTINED}
    assert first <= lost and not lost & never and never
    told = reasons(output.parent / "workspace")
    assert all(rows[key]["reason"] == Reason.REPLACE_FAILED and "surrogate" in told[key] for key in lost)
    assert all(rows[key] == before[key] for key in never)
    assert not lost & set(released(output))
    assert summary.code == 3


def assignments(run: Run, shard: str) -> list[dict[str, Any]]:
    (path,) = run.workspace.glob(f"plan/*/assignments/{shard}.parquet")
    return pq.read_table(path).to_pylist()


def test_a_lost_shard_has_a_row_for_every_image(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[str] = []
    publish = render_module.RenderStage._publish

    def never(self: Any, work: Any) -> Any:
        if work.shard.shard_id == "00001":
            rounds.append(work.shard.shard_id)
            raise OSError("injected")
        return publish(self, work)

    monkeypatch.setattr(render_module.RenderStage, "_publish", never)
    summary, output = run(runs.rendered_but(finished, tmp_path, "00001", "00002"))
    assert len(rounds) == job_module.ROUNDS
    assert summary.code == 3 and summary.committed == summary.shards
    expected = by_key(finished.output)
    assert list(by_key(output)) == list(expected)
    lost = [row for row in manifest(output) if row["status"] == QUARANTINED]
    assert len(lost) == summary.quarantined == 9
    assert all(row["reason"] == Reason.SHARD_FAILED for row in lost)
    told = reasons(tmp_path / "workspace")
    assert all(told[row["key"]].startswith("the shard failed: OSError at ") for row in lost)
    assert "OSError: injected" in (tmp_path / "workspace" / "failures" / "render" / "00001.txt").read_text()
    assert not (output / "data" / "00001.tar").exists()


def test_photos_with_a_drawn_face_say_so_unless_the_job_says_no(one_shard: Run, tmp_path: Path) -> None:
    rows, photos_of = by_key(one_shard.output), released(one_shard.output)
    drawn = {key for key, row in rows.items() if any(face["surrogate_digest"] for face in row["faces"])}
    assert {key for key, photo in photos_of.items() if PACKET in photo} == drawn and 0 < len(drawn) < len(rows)
    _, output = run(runs.planned_copy(one_shard, tmp_path, mark=False))
    assert released(output) == {key: unmarked(photo) for key, photo in photos_of.items()}


# ---- the second look at what came out ---------------------------------------------------------------------------


@dataclass
class Photo:
    rgb: photos.Pixels
    out: photos.Pixels


@dataclass
class Face:
    box: NDArray[np.float32]
    mesh: NDArray[np.float32]
    second: NDArray[np.float32]
    findings: list[dict[str, Any]] = field(default_factory=list)
    detected_again: bool | None = None


def test_a_face_matches_itself_and_not_what_covers_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One face each of two people who never lived and of the astronaut, checked together and alone."""
    config = job("in", tmp_path_factory.mktemp("check"))
    checker = OutputRecheck(config, {name: model_bytes(name) for name in models_of(config)[1]})
    pixels = [photos.astronaut(), *(shot for _, shot in photos.people(2, 1))]
    found = CenterFaceDetector(load_engine(model_bytes("centerface")), side=640, score=0.4).detect(pixels)
    meshes = FaceMesh(load_engine(model_bytes("facemesh"))).fit(pixels, found)
    second = checker.recognizer.embed(pixels, [five_points(mesh.points[0]) for mesh in meshes])
    faces = [Face(boxes.boxes[0], mesh.points[0], own) for boxes, mesh, own in zip(found, meshes, second, strict=True)]

    def checked(outputs: list[photos.Pixels]) -> tuple[list[bool], list[float]]:
        """Which faces still match, and how alike the recognizer finds each to its source."""
        pairs: Any = [(Photo(*shots), face) for *shots, face in zip(pixels, outputs, faces, strict=True)]
        matching = {id(face) for _, face in checker.check(pairs)}
        together = [face.findings[0]["to_source"] for face in faces]
        for number, pair in enumerate(pairs):
            checker.check([pair])
            assert faces[number].findings[0]["to_source"] == together[number], "it depends on its neighbours"
        return [id(face) in matching for face in faces], together

    matches, similarity = checked([image.copy() for image in pixels])
    assert all(matches) and min(similarity) > 0.999 and all(face.detected_again for face in faces)
    assert all(checked([np.asarray(cv2.GaussianBlur(image, (0, 0), 1.5), np.uint8) for image in pixels])[0])
    covered = [image.copy() for image in pixels]
    for image, face in zip(covered, faces, strict=True):
        redact(image, face.box, "solid")
    assert not any(checked(covered)[0]) and not any(face.detected_again for face in faces)
