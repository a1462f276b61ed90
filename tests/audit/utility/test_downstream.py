"""A pattern that survives can be learned from a release, one that does not cannot; nobody is tested on themselves."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.audit.utility.downstream import KINDS, expression_labels, expression_task
from anonlib.workspace.schemas import EXPRESSIONS

PEOPLE, PHOTOS = 60, 4
SUBJECTS = np.repeat(np.arange(PEOPLE), PHOTOS)
SMILES = np.tile([0, 1], PEOPLE * PHOTOS // 2)


def faces(smiles: NDArray[np.int64], seed: int) -> NDArray[np.uint8]:
    """Noise with a bar for a mouth, that a smile opens."""
    drawn = np.random.default_rng(seed).integers(90, 130, (len(smiles), 64, 64)).astype(np.uint8)
    drawn[:, 48:52, 20:44] = 30
    drawn[smiles == 1, 52:60, 25:39] = 240
    return drawn


def test_a_surviving_pattern_is_learned_and_tested_on_clear_faces() -> None:
    crops = {
        "clear": faces(SMILES, 0),
        "released": faces(SMILES, 1),
        "solid": np.full((len(SMILES), 64, 64), 127, np.uint8),
        "turned round": faces(1 - SMILES, 2),
    }
    found = expression_task(crops, SMILES, SUBJECTS)
    values = {name: figure.value or 0.0 for name, figure in found.baselines.items()}
    assert values["clear"] > 0.95 and (found.released.value or 0) > 0.95 and found.released.chance == 0.5
    assert values["solid"] == pytest.approx(0.5)  # always saying one kind is worth a half
    assert values["turned round"] < 0.05  # tested on released faces, smiles that are frowns would look perfect


def test_nobody_is_tested_by_a_network_that_knows_them() -> None:
    """What tells smiles is different in each person: it can be learned by heart and not otherwise."""
    drawn = np.random.default_rng(3)
    marks = drawn.integers(0, 2, (PEOPLE, 2, 8, 8)).repeat(8, axis=2).repeat(8, axis=3)
    crops = np.asarray(marks[SUBJECTS, SMILES] * 255, np.uint8)
    found = expression_task({"clear": crops, "released": crops}, SMILES, SUBJECTS).released
    assert found.value == pytest.approx(0.5, abs=0.1)


def test_too_few_faces_are_not_learned_from_and_the_note_says_so() -> None:
    few = np.where(np.arange(len(SMILES)) < 60, SMILES, -1)
    crops = faces(SMILES, 0)
    found = expression_task({"clear": crops, "released": crops}, few, SUBJECTS)
    assert (found.released.value, found.released.count) == (None, 0)
    assert found.note.startswith("not trained: 30 neutral, 30 happy")


def test_the_network_labels_where_it_is_sure() -> None:
    rows = np.zeros((4, len(EXPRESSIONS)), np.float32)
    rows[0, EXPRESSIONS.index("happy")] = 0.95
    rows[1, EXPRESSIONS.index("neutral")] = 0.8
    rows[2, EXPRESSIONS.index("sad")] = 0.99
    rows[3] = np.nan
    assert expression_labels(rows).tolist() == [KINDS.index("happy"), -1, -1, -1]
