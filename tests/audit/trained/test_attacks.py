"""Trained attacks undo a blur, which hides people from the eye and not from arithmetic, and no flat ellipse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from anonlib.audit.trained.attacks import Preparation, Recognition, invert, recognize
from anonlib.audit.trained.data import NETWORK, AttackerData, split
from anonlib.audit.trained.networks import StudentRecognizer, crops, judged
from anonlib.faces.embed import Recognizer, model_input
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import load_engine
from anonlib.synthesis.redact import redact
from tests.audit.trained.made import held, look


def prepared(data: AttackerData, how: str) -> Preparation:
    return Preparation(data, anonymize=partial(redact, how=how))


def attacked(data: AttackerData, how: str, steps: int = 0) -> Recognition:
    return recognize(prepared(data, how), model_bytes(NETWORK), steps=steps, threads=1)


def judge(pictures: Sequence[NDArray[np.uint8]], points: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return look(np.array(pictures))


@pytest.fixture(scope="module")
def blurred() -> Recognition:
    return attacked(held("blur"), "blur")


def test_a_blur_gives_people_away_to_an_attacker_trained_on_others(blurred: Recognition) -> None:
    assert np.nanmean(blurred.trained.hits()) > 0.5
    assert np.nanmean(blurred.parrot.hits()) > 0.3
    assert blurred.trained.chance == 0.05


def test_a_flat_ellipse_gives_nobody_away() -> None:
    hidden = attacked(held("solid"), "solid")
    assert np.nanmean(hidden.trained.hits()) < 0.2
    assert np.nanmean(hidden.parrot.hits()) < 0.2


def test_attacked_people_have_no_part_in_training(blurred: Recognition) -> None:
    data = held("blur")
    rows = split(data.people, 0).attack
    clear, released, vectors = data.clear.copy(), data.released.copy(), data.vectors["made"].copy()
    for array in (clear, released, vectors):
        array[rows] = array[rows][::-1]
    other = attacked(replace(data, clear=clear, released=released, vectors={"made": vectors}), "blur")
    assert other.chosen_by == blurred.chosen_by
    assert other.trained.threshold == blurred.trained.threshold


def test_the_same_seed_trains_the_same_attacker() -> None:
    data = held("blur", people=16)
    first, second = (attacked(data, "blur", steps=6) for _ in range(2))
    assert np.array_equal(first.trained.ranks, second.trained.ranks, equal_nan=True)
    assert first.chosen_by == second.chosen_by


def test_the_network_starts_as_the_recognizer_that_it_was_and_all_of_it_learns() -> None:
    data = held("blur", people=8)
    student = StudentRecognizer(model_bytes(NETWORK), 5)
    views = model_input(NETWORK, list(data.clear[:4]), list(data.points[:4]))
    recognizer = Recognizer(NETWORK, load_engine(model_bytes(NETWORK)))
    before = recognizer.embed(list(data.clear[:4]), list(data.points[:4]))
    with torch.inference_mode():
        assert np.allclose(student.read(torch.from_numpy(views)).numpy(), before, atol=1e-3)
    student(torch.from_numpy(views)).square().sum().backward()
    assert all(weight.grad is not None for weight in student.body.parameters())
    assert crops(data.clear[:4], data.points[:4]).shape == (4, 112, 112, 3)


def test_faces_drawn_anew_out_of_a_blur_are_recognized_by_another_recognizer() -> None:
    data = held("blur")
    recovered, drawn = invert(prepared(data, "blur"), model_bytes(NETWORK), {"made": judge}, steps=10, threads=1)
    rows = split(data.people, 0).attack

    def error(frames: NDArray[np.uint8]) -> float:
        return float(np.abs(frames[rows] - data.clear[rows].astype(float))[:, 28:68, 28:68].mean())

    assert error(drawn) < 0.6 * error(data.released)
    assert np.nanmean(recovered["made"].hits()) > 0.5


def test_no_face_is_drawn_out_of_a_flat_ellipse() -> None:
    hidden = prepared(held("solid"), "solid")
    recovered, _ = invert(hidden, model_bytes(NETWORK), {"made": judge}, steps=5, threads=1)
    assert np.nanmean(recovered["made"].hits()) < 0.2


def test_the_network_that_helps_to_draw_may_not_judge() -> None:
    with pytest.raises(ValueError, match="cannot judge"):
        invert(prepared(held("blur", people=8), "blur"), b"", {NETWORK: judge})


def test_the_loss_reads_the_crop_that_the_recognizer_reads() -> None:
    data = held("blur", people=8)
    frames = torch.from_numpy(data.clear[:6].transpose(0, 3, 1, 2).astype(np.float32) / 255)
    wanted = model_input(NETWORK, list(data.clear[:6]), list(data.points[:6]))
    assert np.abs(judged(frames, data.points[:6]).numpy() - wanted).mean() < 0.01
