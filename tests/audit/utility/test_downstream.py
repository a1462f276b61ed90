"""A pattern that survives can be learned from a release, one that does not cannot; nobody is tested on themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.audit.utility.downstream import (
    KINDS,
    Labels,
    balanced_accuracy,
    expression_task,
    labels_of,
    labels_of_network,
)
from anonlib.job import Job
from anonlib.workspace.schemas import EXPRESSIONS
from tests.support import photos, runs
from tests.support.evidence import evidence

PEOPLE, PHOTOS = 60, 4
SUBJECTS = np.repeat(np.arange(PEOPLE), PHOTOS)
SMILES = np.tile([0, 1], PEOPLE * PHOTOS // 2)


def faces(smiles: NDArray[np.int64], seed: int) -> NDArray[np.uint8]:
    """Noise with a bar for a mouth, that a smile opens."""
    drawn = np.random.default_rng(seed).integers(90, 130, (len(smiles), 112, 112, 3)).astype(np.uint8)
    drawn[:, 84:92, 36:76] = 30
    drawn[smiles == 1, 92:104, 44:68] = 240
    return drawn


def labels(kind: NDArray[np.int64] = SMILES) -> Labels:
    return Labels(kind, "labels: made up")


@pytest.fixture(scope="module")
def learned() -> dict[str, float | None]:
    crops = {
        "clear": faces(SMILES, 0),
        "released": faces(SMILES, 1),
        "solid": np.full((len(SMILES), 112, 112, 3), 127, np.uint8),
        "turned round": faces(1 - SMILES, 2),
    }
    measure = expression_task(crops, labels(), SUBJECTS)
    assert measure.released.chance == 0.5
    return {name: one.value for name, one in measure.baselines.items()} | {"released": measure.released.value}


def test_nobody_is_tested_by_a_network_that_knows_them() -> None:
    """What tells smiles is different in each person: it can be learned by heart and not otherwise."""
    drawn = np.random.default_rng(3)
    marks = drawn.integers(0, 2, (PEOPLE, 2, 14, 14, 1)).repeat(8, axis=2).repeat(8, axis=3)
    crops = np.asarray(marks[SUBJECTS, SMILES] * np.full(3, 255), np.uint8)
    found = expression_task({"clear": crops, "released": crops}, labels(), SUBJECTS).released
    assert found.value == pytest.approx(0.5, abs=0.1)


def test_too_few_faces_are_not_learned_from_and_the_note_says_so() -> None:
    few = np.where(np.arange(len(SMILES)) < 60, SMILES, -1)
    crops = faces(SMILES, 0)
    found = expression_task({"clear": crops, "released": crops}, labels(few), SUBJECTS)
    assert (found.released.value, found.released.count) == (None, 0)
    assert found.note.startswith("not trained: 30 neutral, 30 happy")


def test_always_saying_the_commoner_kind_is_worth_a_half() -> None:
    kind = np.repeat([0, 1], [90, 10])
    found = balanced_accuracy(kind == 0, kind, np.arange(100))
    assert found.value == 0.5
    assert found.count == 100


def test_the_network_labels_where_it_is_sure() -> None:
    rows = np.zeros((4, len(EXPRESSIONS)), np.float32)
    rows[0, EXPRESSIONS.index("happy")] = 0.95
    rows[1, EXPRESSIONS.index("neutral")] = 0.8
    rows[2, EXPRESSIONS.index("sad")] = 0.99
    rows[3] = np.nan
    assert labels_of_network(rows).kind.tolist() == [KINDS.index("happy"), -1, -1, -1]


def test_a_field_that_the_release_keeps_is_what_is_learned(tmp_path: Path) -> None:
    words = ["happiness", "Neutral", "surprise", None]
    content = [
        member
        for number, word in enumerate(words)
        for member in photos.members(f"photo-{number}", photos.nobody(), {"expression": word} if word else {})
    ]
    photos.tar(tmp_path / "input" / "00000.tar", content)
    looked = evidence(faces=[f"00000/photo-{number}#0" for number in (3, 0, 1, 2)])
    keeping = Job(runs.job(tmp_path / "input", tmp_path, keep_fields=["caption", "expression"]))
    found = labels_of(keeping, looked)
    assert found.kind.tolist() == [-1, KINDS.index("happy"), KINDS.index("neutral"), -1]
    assert found.source == "labels: the dataset's field expression"


def test_a_surviving_pattern_is_learned_and_tested_on_clear_faces(learned: dict[str, float]) -> None:
    assert learned["clear"] > 0.95 and learned["released"] > 0.95
    assert learned["solid"] == pytest.approx(0.5)
    assert learned["turned round"] < 0.05  # tested on released faces, smiles that are frowns would look perfect
