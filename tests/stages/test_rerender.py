"""A reviewer's decisions reach the release: whole, provable, the same bytes every time, and whatever is killed when."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from anonlib.config import JobConfig
from anonlib.faces.centerface import CenterFaceDetector
from anonlib.job import Job
from anonlib.stages import render as render_module
from anonlib.stages.rerender import FOUND
from anonlib.storage.local import LocalStorage
from anonlib.synthesis.redact import GREY, covered, redact
from anonlib.workspace.decisions import Decision, DecisionLog
from anonlib.workspace.layout import open_stores
from anonlib.workspace.schemas import AUDIT_FILES, STATEMENT
from tests.support import photos
from tests.support.forgery import check
from tests.support.runs import Run, by_key, contents, finished_copy, manifest, released, rendered, run_job

Pixels = photos.Pixels
SHARD, OTHERS = "00000", ("00001", "00002")
EMPTY = "empty-0"
BOX = (40, 30, 120, 130)


@pytest.fixture
def alone(one_shard: Run, tmp_path: Path) -> JobConfig:
    """Where everything is rendered again."""
    return finished_copy(one_shard, tmp_path)


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


def test_a_confirmed_image_keeps_its_bytes(copied: JobConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(output(copied))
    for path in (STATEMENT, *AUDIT_FILES):
        (output(copied) / path).write_text("of the release before")
    Job(copied).run()
    assert (output(copied) / STATEMENT).exists(), "nothing was decided"
    key = a_face(copied)
    decide(copied, key, "confirmed")
    monkeypatch.setattr(render_module.RenderStage, "run", lambda *_: pytest.fail("rendered again"))
    for _ in range(2):
        Job(copied).run()
        after = contents(output(copied))
        assert {key: row["review"] for key, row in rows(copied).items() if row["review"]} == {key: "confirmed"}
        changed = {path for path in after if before.get(path) != after[path]}
        assert changed == {f"manifest/{SHARD}.parquet", f"commits/{SHARD}.json", "certificate.json"}
    check(output(copied))


def test_a_missed_face_is_hidden_where_the_reviewer_saw_it(copied: JobConfig, finished: Run) -> None:
    others = files_of(copied, OTHERS)
    decide(copied, EMPTY, "mask", BOX)
    summary = Job(copied).run()
    row = rows(copied)[EMPTY]
    (face,) = row["faces"]
    assert (row["status"], row["review"]) == ("released", "masked")
    assert (face["method"], face["fallback"], face["box"]) == ("fill", "review", list(BOX))
    assert FOUND in {one["reason"] for one in rendered(output(copied))}
    assert face["k"] is None and face["epsilon"] is None and face["surrogate_digest"] is None
    pixels, before = (photos.decoded(released(where)[EMPTY]).copy() for where in (output(copied), finished.output))
    hole = covered(np.array([BOX], np.float32), before.shape[:2])
    redact(before, np.array(BOX, np.float32), "fill")
    assert np.abs(pixels[hole].astype(int) - before[hole]).mean() < 4
    assert summary.faces == finished.summary.faces + 1 and summary.code == 0
    assert files_of(copied, OTHERS) == others
    assert check(output(copied)).certificate.counts.solid >= 1


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


def test_a_quarantined_photo_is_released_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The astronaut's face, which no scan has seen, under the box that a person drew; a broken file stays withheld."""
    victim = photos.astronaut()
    content = [("a.png", photos.encoded(victim, "PNG")), ("b.jpg", b"no image")]
    source = photos.tar(tmp_path / "input" / f"{SHARD}.tar", content).parent
    broken = Mock(side_effect=RuntimeError("injected"))
    monkeypatch.setattr(CenterFaceDetector, "detect", broken)
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
