"""A reviewer's decisions reach the release: whole, provable, the same bytes every time, and whatever is killed when."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anonlib.config import JobConfig
from anonlib.job import Job
from anonlib.stages import render as render_module
from anonlib.stages.rerender import FOUND, HIDDEN
from anonlib.storage.local import LocalStorage
from anonlib.synthesis import compositor
from anonlib.synthesis.redact import GREY
from anonlib.workspace.decisions import Decision, DecisionLog
from anonlib.workspace.layout import open_stores
from anonlib.workspace.schemas import AUDIT_FILES, STATEMENT
from tests.support import photos
from tests.support.forgery import check
from tests.support.runs import Run, by_key, contents, manifest, planned_copy, released, rendered, run_job

Pixels = photos.Pixels
SHARD, OTHERS = "00000", ("00001", "00002")
EMPTY = "empty-0"
BOX = (40, 30, 120, 130)


def copy_of(run: Run, root: Path) -> JobConfig:
    shutil.copytree(run.output, root / "release")
    return planned_copy(run, root)


@pytest.fixture
def copied(finished: Run, tmp_path: Path) -> JobConfig:
    return copy_of(finished, tmp_path)


@pytest.fixture
def alone(one_shard: Run, tmp_path: Path) -> JobConfig:
    """Where everything is rendered again."""
    return copy_of(one_shard, tmp_path)


def log_of(config: JobConfig) -> DecisionLog:
    stores = open_stores(config)
    return DecisionLog(stores.workspace, json.loads(stores.release.read("run.json"))["run"])


def decide(config: JobConfig, key: str, verdict: Any, *boxes: tuple[int, int, int, int], shard: str = SHARD) -> None:
    log_of(config).add(Decision(shard=shard, key=key, verdict=verdict, boxes=boxes))


def output(config: JobConfig) -> Path:
    return Path(config.output.uri)


def rows(config: JobConfig) -> dict[str, dict[str, Any]]:
    return by_key(output(config))


def a_face(config: JobConfig) -> str:
    """A photo of the first shard with a face."""
    paths = {f"data/{SHARD}.tar"}
    return next(key for key, row in rows(config).items() if row["faces"] and row["path"] in paths)


def files_of(config: JobConfig, shards: Sequence[str]) -> dict[str, str]:
    return {path: digest for path, digest in contents(output(config)).items() if Path(path).stem in shards}


def test_a_confirmed_image_is_said_to_be_and_keeps_its_bytes(copied: JobConfig) -> None:
    before = contents(output(copied))
    key = a_face(copied)
    decide(copied, key, "confirmed")
    Job(copied).run()
    after = contents(output(copied))
    assert {key: row["review"] for key, row in rows(copied).items() if row["review"]} == {key: "confirmed"}
    assert {path for path in after if before.get(path) != after[path]} == {
        f"manifest/{SHARD}.parquet",
        f"commits/{SHARD}.json",
        "certificate.json",
    }
    check(output(copied))


def test_a_missed_face_is_hidden_where_the_reviewer_saw_it(copied: JobConfig, finished: Run) -> None:
    others = files_of(copied, OTHERS)
    decide(copied, EMPTY, "mask", BOX)
    summary = Job(copied).run()
    row = rows(copied)[EMPTY]
    (face,) = row["faces"]
    assert (row["status"], row["review"]) == ("released", "masked")
    assert (face["method"], face["fallback"], face["box"]) == ("solid", "review", list(BOX))
    assert FOUND in {one["reason"] for one in rendered(output(copied))}
    assert face["k"] is None and face["epsilon"] is None and face["surrogate_digest"] is None
    pixels = photos.decoded(released(output(copied))[EMPTY])
    x0, y0, x1, y1 = BOX
    assert np.abs(pixels[y0 + 12 : y1 - 12, x0 + 12 : x1 - 12].astype(int) - GREY).max() <= 12
    assert summary.faces == finished.summary.faces + 1 and summary.code == 0
    assert files_of(copied, OTHERS) == others
    assert check(output(copied)).certificate.counts.solid >= 1


def test_what_the_method_paints_never_lies_over_what_the_reviewer_hid(copied: JobConfig) -> None:
    key = a_face(copied)
    box = tuple(round(side) for side in rows(copied)[key]["faces"][0]["box"])
    decide(copied, key, "mask", box)
    Job(copied).run()
    pixels = photos.decoded(released(output(copied))[key])
    height, width = (box[3] - box[1]) // 4, (box[2] - box[0]) // 4
    middle = pixels[max(box[1], 0) + height : box[3] - height, max(box[0], 0) + width : box[2] - width]
    assert np.abs(middle.astype(int) - GREY).max() <= 12
    assert len(rows(copied)[key]["faces"]) == 2


def test_a_withheld_photo_is_in_no_file_of_the_release(copied: JobConfig) -> None:
    key, others = a_face(copied), files_of(copied, OTHERS)
    decide(copied, key, "withhold")
    summary = Job(copied).run()
    row = rows(copied)[key]
    assert (row["status"], row["reason"], row["review"]) == ("quarantined", "withheld", "withheld")
    assert row["output_sha256"] is None and key not in released(output(copied))
    assert summary.quarantined == 1 and summary.code == 3
    assert files_of(copied, OTHERS) == others
    check(output(copied))


def test_the_same_decisions_give_the_same_bytes_whoever_made_them_when(alone: JobConfig) -> None:
    key = a_face(alone)
    decide(alone, key, "mask", BOX)
    Job(alone).run()
    decide(alone, EMPTY, "confirmed")  # words alone: the manifest is written again without rendering
    Job(alone).run()
    reached, log = contents(output(alone)), log_of(alone)
    shutil.rmtree(output(alone))
    log.add(Decision(shard=SHARD, key=key, verdict="mask", boxes=(BOX,), who="AB", when="2031-01-01T00:00:00Z"))
    Job(alone).run()
    assert contents(output(alone)) == reached


def test_an_audit_of_the_release_before_goes_with_its_certificate(copied: JobConfig) -> None:
    for path in (STATEMENT, *AUDIT_FILES):
        (output(copied) / path).write_text("of the release before")
    Job(copied).run()
    assert (output(copied) / STATEMENT).exists(), "nothing was decided"
    decide(copied, EMPTY, "confirmed")
    Job(copied).run()
    check(output(copied))


def test_a_job_that_is_done_and_decided_does_nothing_more(copied: JobConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    decide(copied, EMPTY, "mask", BOX)
    Job(copied).run()
    monkeypatch.setattr(render_module.RenderStage, "run", lambda *_: pytest.fail("rendered again"))
    before = contents(output(copied))
    Job(copied).run()
    assert contents(output(copied)) == before


@pytest.mark.parametrize("method", ["solid", "blur"])
def test_a_redaction_hides_what_a_reviewer_found_under_a_flat_ellipse(method: str, tmp_path: Path) -> None:
    source = photos.tar(tmp_path / "input" / f"{SHARD}.tar", photos.members("a", photos.nobody(), {})).parent
    run = run_job(source, tmp_path, method={"name": method})
    decide(run.config, "a", "mask", BOX)
    Job(run.config).run()
    x0, y0, x1, y1 = BOX
    pixels = photos.decoded(released(run.output)["a"])
    assert np.abs(pixels[y0 + 12 : y1 - 12, x0 + 12 : x1 - 12].astype(int) - GREY).max() <= 12
    assert manifest(run.output)[0]["faces"][0]["method"] == "solid"
    assert check(run.output).certificate.counts.solid == 1


class Killed(BaseException):
    """What nothing in a job catches."""


def killed_at(step: int, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """The storage's `step`-th change of the release is not done, and the process ends there."""
    left = [step]

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(self: LocalStorage, path: str, *rest: Any, **named: Any) -> Any:
            if self.uri.endswith("release"):
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
            return method(self, path, *rest, **named)

        return wrapped

    for name in ("publish", "claim", "delete"):
        patch.setattr(LocalStorage, name, counted(getattr(LocalStorage, name)))
    yield


@pytest.fixture(params=["tar", "folder"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> JobConfig:
    """A finished redaction of three photos, which is quick to repeat."""
    folder = tmp_path / "input"
    shots = {name: photos.jpeg(photos.nobody()[start:]) for start, name in enumerate("abc")}
    if request.param == "tar":
        photos.tar(folder / f"{SHARD}.tar", [(f"{name}.jpg", data) for name, data in shots.items()])
    else:
        folder.mkdir()
        for name, data in shots.items():
            (folder / f"{name}.jpg").write_bytes(data)
    return run_job(folder, tmp_path, method={"name": "solid"}).config


def test_a_kill_at_any_point_is_repaired_by_the_next_run(small: JobConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where, before that run, the reviewer takes one decision back and makes another."""
    (commit,) = (output(small) / "commits").iterdir()
    shard, (first, second, third) = commit.stem, [row["key"] for row in manifest(output(small))]
    ends = []
    for final in ("withhold", "undone"):
        log_of(small).add(Decision(shard=shard, key=first, verdict=final))
        log_of(small).add(Decision(shard=shard, key=second, verdict="confirmed"))
        Job(small).run()
        ends.append(contents(output(small)))
    decided, clean = ends
    steps = 0
    while True:
        log_of(small).add(Decision(shard=shard, key=first, verdict="withhold"))
        with monkeypatch.context() as patch:
            next(killed_at(steps, patch))
            try:
                Job(small).run()
                break
            except Killed:
                pass
        left = contents(output(small))
        # Whatever is there in between is no finished release, or the old one, whole.
        assert "certificate.json" not in left or left == clean, steps
        if steps % 2:
            log_of(small).add(Decision(shard=shard, key=first, verdict="undone"))
        Job(small).run()
        assert contents(output(small)) == (clean if steps % 2 else decided), steps
        check(output(small))
        log_of(small).add(Decision(shard=shard, key=first, verdict="undone"))
        Job(small).run()
        assert contents(output(small)) == clean
        steps += 1
    assert steps >= 8
    assert third in rows(small) and contents(output(small)) == decided


def test_what_an_earlier_attempt_left_behind_goes_before_the_release_is_signed(small: JobConfig) -> None:
    """A photo published by a run that was killed, and withheld before the next one, is named by no marker."""
    clean = contents(output(small))
    (commit,) = (output(small) / "commits").iterdir()
    (output(small) / "withdrawn").mkdir()
    shutil.copy(commit, output(small) / "withdrawn" / commit.name)
    (output(small) / "data" / "left.jpg").write_bytes(photos.jpeg(photos.nobody()))
    Job(small).run()
    assert contents(output(small)) == clean


def broken_scan(patch: pytest.MonkeyPatch, victim: str) -> None:
    """A detector that fails on the photo whose first row is all white."""
    from anonlib.faces.centerface import CenterFaceDetector

    detect = CenterFaceDetector.detect

    def wrapped(self: Any, images: list[Pixels], *rest: Any) -> Any:
        if any((image[:6] > 250).all() for image in images):
            raise RuntimeError("injected")
        return detect(self, images, *rest)

    patch.setattr(CenterFaceDetector, "detect", wrapped)


def test_a_quarantined_photo_is_released_with_every_face_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The astronaut's face, which no scan has seen, under the box that a person drew; a broken file stays withheld."""
    victim = photos.astronaut().copy()
    victim[:8] = 255
    buffer = io.BytesIO()
    Image.fromarray(victim).save(buffer, "PNG")
    content = [("a.png", buffer.getvalue()), ("b.jpg", b"no image")]
    source = photos.tar(tmp_path / "input" / f"{SHARD}.tar", content).parent
    broken_scan(monkeypatch, "a")
    run = run_job(source, tmp_path, method={"name": "solid"})
    assert {row["status"] for row in manifest(run.output)} == {"quarantined"}
    for key in "ab":
        decide(run.config, key, "release_masked", (170, 60, 280, 190))
    Job(run.config).run()
    first, second = manifest(run.output)
    assert (first["status"], first["review"]) == ("released", "masked")
    assert (second["status"], second["review"]) == ("quarantined", "masked")
    assert second["reason"] == "not-an-image"
    pixels = photos.decoded(released(run.output)["a"])
    assert (pixels[90:160, 195:255] == GREY).all()
    changed = (pixels != victim).any(axis=2)
    assert not changed[300:].any() and not changed[:30].any()
    check(run.output)


def test_a_photo_that_failed_to_render_is_released_with_its_known_faces_hidden_too(
    alone: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = a_face(alone)
    shutil.rmtree(output(alone))
    with monkeypatch.context() as patch:
        patch.setattr(compositor, "render", lambda *_: (_ for _ in ()).throw(RuntimeError("injected")))
        Job(alone).run()
    assert rows(alone)[key]["status"] == "quarantined"
    decide(alone, key, "release_masked", BOX)
    Job(alone).run()
    row = rows(alone)[key]
    assert [face["fallback"] for face in row["faces"]] == ["review"] * len(row["faces"])
    told = [one["reason"] for one in rendered(output(alone)) if one["key"] == row["key"]]
    assert told == [HIDDEN] * (len(row["faces"]) - 1) + [FOUND]
    assert {face["method"] for face in row["faces"]} == {"solid"} and row["status"] == "released"
    assert len(row["faces"]) >= 2
    check(output(alone))


def test_new_keys_do_not_tell_the_old_ones(one_shard: Run, tmp_path: Path) -> None:
    config = planned_copy(one_shard, tmp_path, rekey=True)
    Job(config).run()
    decide(config, EMPTY, "mask", BOX)
    Job(config).run()
    (masked,) = [row for row in manifest(output(config)) if row["review"] == "masked"]
    assert masked["key"] != EMPTY and masked["faces"][0]["fallback"] == "review"
    everything = b"".join(path.read_bytes() for path in output(config).rglob("*") if path.is_file())
    assert EMPTY.encode() not in everything
    check(output(config))
