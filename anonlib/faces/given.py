"""Regions that a dataset brings with it: read from a sidecar or column, checked, and joined with a detector's.

A value is a list of boxes or of objects that have one, an object of such lists (as COCO's annotations and the columns
of Hugging Face have them), or lines of text `kind box` (as YOLO has them). What cannot be read is refused: a box that
is not hidden shows what its maker wanted hidden.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from anonlib.codes import Reason
from anonlib.config import InputConfig
from anonlib.errors import ImageProblem
from anonlib.faces.detect import SAME_FACE
from anonlib.faces.regions import FACE, IN_ALPHA, Regions, overlaps, share_inside
from anonlib.workspace.schemas import IGNORED

IGNORE = "ignore"
OTHER = "region of another kind"
"""The kind of a region whose kind the job does not name: free text of a dataset may be a person's name."""
_BOXES = ("boxes", "bboxes", "bbox", "box", "objects", "annotations")
_KINDS = ("kinds", "kind", "categories", "category", "category_id", "labels", "label", "class")
_POINTS = np.array([[0.31, 0.46], [0.69, 0.46], [0.5, 0.64], [0.35, 0.82], [0.65, 0.82]], np.float32)
"""Eyes, nose and mouth corners of an upright face, in sides of its box."""
_BEYOND = 0.05
"""How far, in sides of the image, a normalized box may reach beyond it."""
_INSIDE = 0.9
"""Share of a detection's box inside an ignore area, from which it is ignored."""


def given_regions(value: Any, size: tuple[int, int], settings: InputConfig) -> Regions:
    """The regions of an image of `size` (H, W) px that its field `boxes_field` holds, clipped to it; None holds none.

    Kinds are FACE, IGNORE, those that the job names, and OTHER. Raises ImageProblem.
    """
    named = {FACE, IGNORE, *settings.boxes_kinds.values()}
    boxes, kinds = [], []
    try:
        for numbers, kind in () if value is None else _entries(value):
            left, top, right, bottom = numbers
            boxes.append([float(number) for number in (left, top, right, bottom)])
            word = FACE if kind is None else str(kind).strip()
            word = settings.boxes_kinds.get(word, word)
            kinds.append(word if word in named else OTHER)
        corners = np.array(boxes, np.float64).reshape(-1, 4)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise _bad("are no list of boxes of four numbers each") from None
    height, width = size
    if settings.boxes_format in ("xyxyn", "xywhn", "yolo"):
        if not (np.abs(corners - 0.5) <= 0.5 + _BEYOND).all():
            raise _bad(f"are not between 0 and 1, as input.boxes_format: {settings.boxes_format} has them")
        corners *= (width, height, width, height)
    if settings.boxes_format == "yolo":
        corners[:, :2] -= corners[:, 2:] / 2
    if not settings.boxes_format.startswith("xyxy"):
        corners[:, 2:] += corners[:, :2]
    inside = np.clip(corners, 0, (width, height, width, height))
    empty = ~((inside[:, 2:] - inside[:, :2]) >= 1).all(axis=1)  # also of what is no number
    if empty.any():
        number = int(np.flatnonzero(empty)[0])
        raise _bad(f"number {number + 1} has no px in the {width} x {height} px image: {boxes[number]}")
    clipped = inside.astype(np.float32)
    points = clipped[:, None, :2] + _POINTS * (clipped[:, 2:] - clipped[:, :2])[:, None]
    points[[kind != FACE for kind in kinds]] = np.nan
    return Regions(clipped, np.ones(len(clipped), np.float32), points, tuple(kinds))


def joined(found: Regions, given: Regions, *, ignore: bool) -> Regions:
    """What a detector found and what was given, behind it; a face that both have is one, in the box of both.

    With `ignore` a face that was found inside an area IGNORE, and was not given, is IGNORED. Such areas are no regions.
    """
    boxes, kinds, new = found.boxes.copy(), list(found.kinds), []
    both = np.zeros(len(found), np.bool_)
    for number, (box, kind) in enumerate(zip(given.boxes, given.kinds, strict=True)):
        same = np.where(found.is_face, overlaps(box, found.boxes), 0)
        if kind == FACE and same.max(initial=0) > SAME_FACE:
            one = np.argmax(same)
            boxes[one, :2], boxes[one, 2:] = np.minimum(boxes[one, :2], box[:2]), np.maximum(boxes[one, 2:], box[2:])
            both[one] = True
        elif kind != IGNORE:
            new.append(number)
    areas = given.boxes[[kind == IGNORE for kind in given.kinds]]
    faces = np.isin(found.kinds, (FACE, IN_ALPHA))
    for one in np.flatnonzero(faces & ~both & (share_inside(found.boxes, areas) >= _INSIDE) & ignore):
        kinds[one] = IGNORED
    return Regions(
        np.concatenate([boxes, given.boxes[new]]),
        np.concatenate([found.scores, given.scores[new]]),
        np.concatenate([found.landmarks, given.landmarks[new]]),
        (*kinds, *(given.kinds[number] for number in new)),
    )


def _entries(value: Any) -> Iterator[tuple[Any, Any]]:
    """(four numbers, kind or None) of each box. Raises TypeError or ValueError."""
    if isinstance(value, bytes | str):
        text = value.decode() if isinstance(value, bytes) else value
        if text.lstrip()[:1] not in ("[", "{"):
            yield from ((numbers, kind) for kind, *numbers in filter(None, map(str.split, text.splitlines())))
            return
        value = json.loads(text)
    if isinstance(value, Mapping):
        held, kinds = _named(value, _BOXES), _named(value, _KINDS)
        if kinds is None:
            yield from _entries(held)
        else:
            yield from zip(held, kinds, strict=True)
        return
    for entry in [value] if value and isinstance(value[0], int | float) else value:
        yield (_named(entry, _BOXES), _named(entry, _KINDS)) if isinstance(entry, Mapping) else (entry, None)


def _named(entry: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((entry[name] for name in names if entry.get(name) is not None), None)


def _bad(what: str) -> ImageProblem:
    return ImageProblem(Reason.BAD_BOXES, f"the boxes in input.boxes_field {what}")
