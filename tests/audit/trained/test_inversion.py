"""Claims about the inversion attack, on made people."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from anonlib.audit.trained.data import AttackerData, split
from anonlib.audit.trained.inversion import Inversion, invert
from anonlib.audit.trained.recognizer import NETWORK
from anonlib.audit.trained.unet import judged
from anonlib.faces.embed import model_input
from anonlib.models.cache import model_bytes
from anonlib.synthesis.redact import redact
from tests.audit.trained.made import held, look


def judge(pictures: Sequence[NDArray[np.uint8]], points: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return look(np.array(pictures))


def inverted(one: AttackerData, how: str, steps: int) -> Inversion:
    return invert(one, model_bytes(NETWORK), {"made": judge}, again=partial(redact, how=how), steps=steps, threads=1)


def test_who_is_painted_anew_out_of_a_blur_is_recognized_by_a_stranger() -> None:
    one = held("blur")
    found = inverted(one, "blur", 10)
    rows = split(one.people, 0).attack

    def error(frames: NDArray[np.uint8]) -> float:
        return float(np.abs(frames[rows] - one.clear[rows].astype(float))[:, 28:68, 28:68].mean())

    assert error(found.painted) < 0.6 * error(one.released)
    assert np.nanmean(found.recovered["made"].hits()) > 0.5


def test_nobody_is_painted_out_of_a_flat_ellipse() -> None:
    assert np.nanmean(inverted(held("solid"), "solid", 5).recovered["made"].hits()) < 0.2


def test_the_network_that_helps_to_paint_may_not_judge() -> None:
    with pytest.raises(ValueError, match="cannot judge"):
        invert(held("blur", people=8), b"", {NETWORK: judge})


def test_the_painter_is_paid_by_the_crop_that_the_recognizer_reads() -> None:
    one = held("blur", people=8)
    frames = torch.from_numpy(one.clear[:6].transpose(0, 3, 1, 2).astype(np.float32) / 255)
    seen = judged(frames, one.points[:6]).numpy()
    wanted = model_input(NETWORK, list(one.clear[:6]), list(one.points[:6]))
    assert np.abs(seen - wanted).mean() < 0.01
