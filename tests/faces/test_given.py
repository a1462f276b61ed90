"""Boxes that a dataset brings: read in every spelling, checked, and joined with what a detector finds."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from anonlib.config import InputConfig
from anonlib.errors import ImageProblem
from anonlib.faces.given import IGNORE, OTHER, given_regions, joined
from anonlib.faces.regions import FACE, Regions
from anonlib.workspace.schemas import IGNORED

SIZE = (100, 200)  # rows, columns
WANTED = [[20, 10, 60, 50], [100, 30, 200, 100]]


def settings(**keys: Any) -> InputConfig:
    return InputConfig(uri="x", boxes_field="boxes", **keys)


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("xyxy", WANTED),
        ("xyxy", json.dumps(WANTED).encode()),
        ("xyxy", {"boxes": WANTED}),
        ("xyxy", [{"box": WANTED[0]}, {"box": WANTED[1], "id": 7}]),
        ("xyxy", [[20, 10, 60, 50], [100, 30, 240, 130]]),  # cut at the border
        ("xywh", {"bbox": [[20, 10, 40, 40], [100, 30, 100, 70]], "category": ["face", "face"]}),
        ("xywh", {"annotations": [{"bbox": [20, 10, 40, 40]}, {"bbox": [100, 30, 100, 70]}]}),
        ("xyxyn", [[0.1, 0.1, 0.3, 0.5], [0.5, 0.3, 1, 1]]),
        ("xywhn", [[0.1, 0.1, 0.2, 0.4], [0.5, 0.3, 0.5, 0.7]]),
        ("yolo", b"face 0.2 0.3 0.2 0.4\nface 0.75 0.65 0.5 0.7\n\n"),
    ],
)
def test_boxes_are_read_in_every_spelling(form: str, value: Any) -> None:
    found = given_regions(value, SIZE, settings(boxes_format=form))
    assert np.allclose(found.boxes, WANTED, atol=1e-3) and set(found.kinds) == {FACE} and (found.scores == 1).all()
    inside = (found.landmarks >= found.boxes[:, None, :2]) & (found.landmarks <= found.boxes[:, None, 2:])
    assert inside.all()


def test_one_box_alone_and_none_are_read() -> None:
    assert len(given_regions([20, 10, 60, 50], SIZE, settings())) == 1
    for nothing in (None, [], b"", b"[]", {"boxes": []}):
        assert len(given_regions(nothing, SIZE, settings())) == 0


def test_only_kinds_that_the_job_names_are_told() -> None:
    value = [{"box": WANTED[0], "kind": kind} for kind in (0, 1, "plate", "Ada Quill", "face", "ignore")]
    found = given_regions(value, SIZE, settings(boxes_kinds={0: "face", 1: "plate", "plate": "plate"}))
    assert found.kinds == (FACE, "plate", "plate", OTHER, FACE, IGNORE)
    assert np.isnan(found.landmarks[1]).all()


@pytest.mark.parametrize(
    ("form", "value", "said"),
    [
        ("xyxy", b"{broken", "no list of boxes"),
        ("xyxy", [[1, 2, 3]], "no list of boxes"),
        ("xyxy", [[1, 2, "a", 4]], "no list of boxes"),
        ("xyxy", {"other": WANTED}, "no list of boxes"),
        ("xyxy", {"boxes": WANTED, "kinds": ["face"]}, "no list of boxes"),
        ("xyxy", 7, "no list of boxes"),
        ("xyxy", b"[[1" + b"0" * 400 + b", 0, 5, 5]]", "no list of boxes"),
        ("xyxy", b"\xff\xfe", "no list of boxes"),
        ("xyxy", b"[" * 100_000, "no list of boxes"),
        ("xyxy", b"null", "no list of boxes"),
        ("xyxy", b"face 10 10\nface 50 50", "no list of boxes"),
        ("xyxy", [[10, 10, 20, 20, 0.9]] * 4, "no list of boxes"),
        ("xyxy", [WANTED[0], [60, 10, 20, 50]], "number 2 has no px in the 200 x 100 px image"),
        ("xyxy", [[300, 10, 400, 50]], "has no px"),
        ("xyxy", [[20, 10, float("nan"), 50]], "has no px"),
        ("xyxy", [[0.1, 0.1, 0.3, 0.5]], "has no px"),
        ("xywh", [[20, 10, -5, 40]], "has no px"),
        ("xyxyn", WANTED, "not between 0 and 1"),
        ("xyxyn", [[float("nan"), 0, 1, 1]], "not between 0 and 1"),
    ],
)
def test_bad_boxes_are_refused_with_a_sentence(form: str, value: Any, said: str) -> None:
    with pytest.raises(ImageProblem, match=said) as raised:
        given_regions(value, SIZE, settings(boxes_format=form))
    assert raised.value.reason == "bad-boxes"


def test_a_face_that_both_have_is_hidden_as_far_as_either_says() -> None:
    points = np.full((2, 5, 2), 7, np.float32)
    found = Regions(np.array([[20, 10, 60, 50], [0, 0, 10, 10]], np.float32), np.array([0.9, 0.5], np.float32), points)
    value = [{"box": [25, 12, 70, 55]}, {"box": [100, 30, 140, 70]}, {"box": [22, 12, 60, 50], "kind": "plate"}]
    both = joined(found, given_regions(value, SIZE, settings(boxes_kinds={"plate": "plate"})), ignore=False)
    assert both.boxes.tolist() == [[20, 10, 70, 55], [0, 0, 10, 10], [100, 30, 140, 70], [22, 12, 60, 50]]
    assert both.kinds == (FACE, FACE, FACE, "plate")
    assert (both.landmarks[:2] == 7).all() and both.scores.tolist() == pytest.approx([0.9, 0.5, 1, 1])


@pytest.mark.parametrize(("ignore", "kinds"), [(True, (IGNORED, FACE, FACE)), (False, (FACE, FACE, FACE))])
def test_an_area_ignores_what_lies_in_it_if_the_job_says_so_and_never_a_given_box(
    ignore: bool, kinds: tuple[str, ...]
) -> None:
    boxes = np.array([[10, 10, 30, 30], [45, 10, 65, 30], [10, 60, 30, 80]], np.float32)
    found = Regions(boxes, np.ones(3, np.float32), np.zeros((3, 5, 2), np.float32))
    value = [{"box": [0, 0, 50, 100], "kind": "ignore"}, {"box": [10, 60, 30, 80]}]
    assert joined(found, given_regions(value, SIZE, settings()), ignore=ignore).kinds == kinds


def test_text_in_an_ignore_area_stays_a_text_that_is_hidden() -> None:
    found = Regions.of_kind("text", np.array([[10, 10, 30, 30]], np.float32), np.ones(1, np.float32))
    value = [{"box": [0, 0, 50, 100], "kind": "ignore"}]
    assert joined(found, given_regions(value, SIZE, settings()), ignore=True).kinds == ("text",)
