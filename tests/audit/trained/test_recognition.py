"""Claims about the trained attack, on made people whom a blur hides from the eye and not from arithmetic."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from anonlib.audit.trained.data import AttackerData, split
from anonlib.audit.trained.recognition import TrainedAttack, train
from anonlib.audit.trained.recognizer import NETWORK, StudentRecognizer, crops
from anonlib.faces.embed import Recognizer, model_input
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import load_engine
from anonlib.synthesis.redact import redact
from tests.audit.trained.made import held


def attacked(one: AttackerData, how: str, steps: int = 0) -> TrainedAttack:
    return train(one, model_bytes(NETWORK), again=partial(redact, how=how), steps=steps, threads=1)


@pytest.fixture(scope="module")
def blurred() -> TrainedAttack:
    return attacked(held("blur"), "blur")


def test_a_blur_gives_people_away_to_whoever_trains_on_others(blurred: TrainedAttack) -> None:
    assert np.nanmean(blurred.trained.hits()) > 0.5
    assert np.nanmean(blurred.parrot.hits()) > 0.3
    assert blurred.trained.chance == 0.05


def test_a_flat_ellipse_does_not() -> None:
    hidden = attacked(held("solid"), "solid")
    assert np.nanmean(hidden.trained.hits()) < 0.2
    assert np.nanmean(hidden.parrot.hits()) < 0.2


def test_nobody_who_is_attacked_has_part_in_training(blurred: TrainedAttack) -> None:
    one = held("blur")
    rows = split(one.people, 0).attack
    clear, released = one.clear.copy(), one.released.copy()
    vectors = one.vectors["made"].copy()
    for array in (clear, released, vectors):
        array[rows] = array[rows][::-1]
    other = attacked(replace(one, clear=clear, released=released, vectors={"made": vectors}), "blur")
    assert other.chosen_by == blurred.chosen_by
    assert other.trained.threshold == blurred.trained.threshold


def test_the_same_seed_trains_the_same_attacker() -> None:
    one = held("blur", people=16)
    first, second = (attacked(one, "blur", steps=6) for _ in range(2))
    assert np.array_equal(first.trained.ranks, second.trained.ranks, equal_nan=True)
    assert first.chosen_by == second.chosen_by


def test_the_students_body_learns_and_starts_as_the_recognizer_that_it_was() -> None:
    one = held("blur", people=8)
    student = StudentRecognizer(model_bytes(NETWORK), 5)
    views = model_input(NETWORK, list(one.clear[:4]), list(one.points[:4]))
    recognizer = Recognizer(NETWORK, load_engine(model_bytes(NETWORK)))
    before = recognizer.embed(list(one.clear[:4]), list(one.points[:4]))
    with torch.inference_mode():
        assert np.allclose(student.read(torch.from_numpy(views)).numpy(), before, atol=1e-3)
    student(torch.from_numpy(views)).square().sum().backward()
    assert all(weight.grad is not None for weight in student.body.parameters())
    assert crops(one.clear[:4], one.points[:4]).shape == (4, 112, 112, 3)
