"""What a person decides is kept, counted and carried out; what cannot be decided is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonlib.audit.review_queue import judge, judged_so_far, waiting
from anonlib.audit.run import audit
from anonlib.audit.statistics import upper_bound
from anonlib.config import JobConfig, LimitsConfig
from anonlib.errors import JobError
from anonlib.job import Job
from anonlib.review.session import EVEN, Session, Strip
from tests.review.conftest import FACE
from tests.support import clips
from tests.support.runs import by_key


def number(session: Session, key: str) -> int:
    return next(place for place, image in enumerate(session.images) if image.key == key)


@pytest.fixture
def session(reviewed: JobConfig) -> Session:
    return Session(reviewed, who="AB")


def test_the_sample_is_of_released_images_and_the_others_are_lists_of_their_own(reviewed: JobConfig) -> None:
    boxes = [list(FACE), [1.0, 2.0, 9.0, 9.0]]
    session = Session(reviewed, second={("00001", "nobody-5"): [list(FACE)], ("00000", "astronaut"): boxes})
    names = {kind: [session.images[image].key for image in numbers] for kind, numbers in session.lists.items()}
    assert sorted(names["sample"]) == ["astronaut", *(f"nobody-{index}" for index in range(6))]
    assert names["quarantined"] == ["failing", "broken"] and names["second"] == ["nobody-5", "astronaut"]
    assert session.suggested[number(session, "astronaut")] == boxes
    assert len(Session(reviewed, sample=2).lists["sample"]) == 2


def test_decisions_are_there_when_the_session_is_opened_again_and_stop_an_audit(
    session: Session, reviewed: JobConfig
) -> None:
    session.decide(number(session, "astronaut"), "mask", [FACE])
    session.decide(number(session, "nobody-1"), "confirmed")
    session.undo(number(session, "nobody-1"))
    again = Session(reviewed)
    found = again.decision(number(again, "astronaut"))
    assert found is not None and found.verdict == "mask" and found.boxes == (FACE,) and found.who == "AB"
    assert again.decision(number(again, "nobody-1")) is None
    assert not again.carried_out(number(again, "astronaut")) and waiting(again.job, again.log) == ["00000"]
    with pytest.raises(JobError, match="1 shards wait for what a reviewer decided"):
        audit(reviewed)


def test_the_sample_and_its_figures_stay_while_decisions_are_carried_out(session: Session, reviewed: JobConfig) -> None:
    drawn = [session.images[image].key for image in session.lists["sample"]]
    session.decide(session.lists["sample"][0], "withhold")
    session.decide(session.lists["sample"][1], "confirmed")
    session.decide(number(session, "failing"), "release_masked", [FACE])
    figures = session.judged()
    assert (figures.judged, figures.wrong, figures.upper) == (2, 1, upper_bound(1, 2))
    session.apply()
    again = Session(reviewed)
    assert [again.images[image].key for image in again.lists["sample"]] == drawn
    assert [again.images[image].key for image in again.lists["quarantined"]] == ["failing", "broken"]
    assert session.judged() == again.judged() == judged_so_far(Job(reviewed)) == figures
    assert by_key(Path(reviewed.output.uri))["failing"]["status"] == "released"


def test_verdicts_after_a_skipped_image_do_not_count() -> None:
    found = judge(["confirmed", "mask", None, "confirmed", "withhold", None])
    assert (found.judged, found.wrong, found.skipped) == (2, 1, 2)
    assert judge(["confirmed"] * 300).upper < 0.01
    assert judge([]).upper == judge([None, "confirmed"]).upper == 1.0
    assert judge(["withhold", "confirmed"]).wrong == 1


def test_a_file_without_pixels_can_only_stay_withheld(session: Session) -> None:
    assert session.allowed(number(session, "broken")) == ("withhold",)
    assert session.allowed(number(session, "failing")) == ("withhold", "release_masked")
    with pytest.raises(JobError, match="cannot get that verdict"):
        session.decide(number(session, "broken"), "release_masked", [FACE])
    with pytest.raises(JobError, match="cannot get that verdict"):
        session.decide(number(session, "failing"), "confirmed")


@pytest.mark.parametrize(
    "boxes", [[], [(5, 5, 6, 6)], [(900, 5, 960, 60)], [(5, 5, 60)], [(60, 60, 5, 5)], [FACE, (5, 5, 6, 6)]]
)
def test_boxes_that_hide_nothing_are_refused_and_others_are_cut_to_the_image(
    session: Session, boxes: list[tuple[int, ...]]
) -> None:
    with pytest.raises(JobError):
        session.decide(number(session, "astronaut"), "mask", boxes)
    assert session.decisions == {}
    decision = session.decide(number(session, "astronaut"), "mask", [(-20.4, 30.6, 900, 120)])
    assert decision.boxes == ((0, 31, 512, 120),)


def test_a_release_that_is_not_finished_is_not_reviewed(reviewed: JobConfig) -> None:
    (Path(reviewed.output.uri) / "commits" / "00001.json").unlink()
    with pytest.raises(JobError, match="not complete"):
        Session(reviewed)


# ---- the strip of a clip ----------------------------------------------------------------------------------------


def row(frames: int, *tracks: tuple[int, int]) -> dict[str, Any]:
    said = {"method": "solid", "fallback": None}
    faces = [said | {"first": a, "last": b, "boxes": [10, 20, 30, 40] * (b - a + 1)} for a, b in tracks]
    return {"frames": frames, "width": 64, "height": 48, "faces": faces}


def test_a_strip_shows_both_ends_and_every_track() -> None:
    strip = Strip(row(1000, (0, 999), (5, 9)))
    assert strip.frames[0] == 0 and strip.frames[-1] == 999 and 7 in strip.frames
    assert len(strip.frames) == EVEN + 1
    assert strip.size == (48 * 5, 64 * 3)


def test_the_frames_of_a_strip_are_those_of_the_clip(tmp_path: Path) -> None:
    path = clips.make(tmp_path / "clip.mp4", 4)
    picture = Strip(row(4)).picture(path.read_bytes(), LimitsConfig())
    for frame, corner in enumerate([(0, 0), (0, 64), (0, 128), (48, 0)]):
        y, x = corner
        shown = picture[y : y + 48, x : x + 64].astype(int)
        assert np.abs(shown - clips.frames_of(path)[frame].rgb).max() == 0
