"""Trained attacks undo a blur, which hides people from the eye and not from arithmetic, and no flat ellipse; as
findings they stand beside every baseline, which is attacked only once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from anonlib.audit.evidence.evidence import CLEAR, RELEASED, SIDE, Evidence
from anonlib.audit.findings import Attack
from anonlib.audit.trained import suite
from anonlib.audit.trained.data import NETWORK, teachers
from anonlib.audit.trained.networks import StudentRecognizer, TrainedAttacker
from anonlib.audit.trained.suite import (
    BOTH_RELEASED,
    INVERSION,
    TOGETHER,
    TRAINED,
    TRAINED_HERE,
    WITH_PLAN,
    Answers,
    Results,
    attack,
    results,
    trained_attacks,
)
from anonlib.execution.base import UnitResult
from anonlib.faces.embed import Recognizer, model_input
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import load_engine
from anonlib.storage import open_storage
from anonlib.workspace.layout import StageStore
from anonlib.workspace.schemas import MESH_POINTS
from tests.audit.trained.made import JUDGE, held, look
from tests.support import evidence as support

PEOPLE, PHOTOS = 40, 2
FEW = ("solid", "one-face")


@pytest.fixture(scope="module", autouse=True)
def _a_few_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {"STEPS": 0, "DRAWN": 10, "BASELINES": FEW}.items():
            patched.setattr(suite, name, value)
        yield


# ---- attackers --------------------------------------------------------------------------------------------------


def hit(results: Results, name: str) -> float:
    ranks = results[name][0]
    return float((ranks[~np.isnan(ranks)] == 1).mean())


class KnowsPatterns:
    """A judge of the drawn people of `held`, in the place of a Recognizer."""

    def __init__(self, name: str, engine: object) -> None: ...

    def embed(self, pictures: Sequence[NDArray[np.uint8]], points: object) -> NDArray[np.float32]:
        return look(np.array(pictures))


def test_a_blur_gives_people_away_to_an_attacker_trained_on_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "Recognizer", KnowsPatterns)
    data, drawn, draw = held("blur"), list[NDArray[np.uint8]](), TrainedAttacker.draw
    monkeypatch.setattr(TrainedAttacker, "draw", lambda *given: drawn.append(draw(*given)) or drawn[0])
    found = results(attack(data), data)
    assert hit(found, TRAINED) > 0.5 and hit(found, BOTH_RELEASED) > 0.3
    assert hit(found, TOGETHER) > hit(found, TRAINED) and hit(found, f"{INVERSION} by {JUDGE}") > 0.5
    errors = [np.abs(frames[data.attack] - data.clear[data.attack].astype(float))[:, 28:68, 28:68].mean()
              for frames in (drawn[0], data.released)]  # fmt: skip
    assert errors[0] < 0.6 * errors[1]


def test_attacked_people_have_no_part_in_training_and_a_seed_gives_the_same_attacker() -> None:
    data = held("blur", people=12, photos=4)
    clear, vectors = data.clear.copy(), data.vectors[JUDGE].copy()
    for array in (clear, vectors):
        array[data.attack] = array[data.attack][::-1]
    others = replace(data, clear=clear, vectors={JUDGE: vectors})
    learned = [TrainedAttacker(model_bytes(NETWORK), each).recognize(teachers(each), 6) for each in (data, others)]
    assert np.array_equal(*learned)


def test_the_network_starts_as_the_recognizer_that_it_was_and_all_of_it_learns() -> None:
    data = held("blur", people=8)
    student = StudentRecognizer(model_bytes(NETWORK), 5)
    pictures, points = list(data.clear[:4]), list(data.points[:4])
    views = torch.from_numpy(model_input(NETWORK, pictures, points))
    before = Recognizer(NETWORK, load_engine(model_bytes(NETWORK))).embed(pictures, points)
    with torch.inference_mode():
        assert np.allclose(student.read(views).numpy(), before, atol=1e-3)
    student(views).square().sum().backward()
    assert all(weight.grad is not None for weight in student.body.parameters())


# ---- findings ---------------------------------------------------------------------------------------------------


def coloured() -> Evidence:
    """People who are told by the colour of their face, which blur keeps, a mosaic too, and a flat ellipse does not."""
    random = np.random.default_rng(0)
    subjects = np.repeat(np.arange(PEOPLE), PHOTOS)
    count = len(subjects)
    tint = random.integers(40, 215, (PEOPLE, 2, 2, 3))[subjects]
    faces = tint.repeat(SIDE // 2, axis=1).repeat(SIDE // 2, axis=2)
    faces = np.clip(faces + random.integers(-6, 7, faces.shape), 0, 255).astype(np.uint8)
    clear = (tint.reshape(count, -1) - 127.0) @ random.standard_normal((12, 512))
    clear = np.asarray(clear / np.linalg.norm(clear, axis=1, keepdims=True), np.float32)
    hidden = random.standard_normal(clear.shape).astype(np.float32)
    mesh = random.uniform(30, 70, (1, MESH_POINTS, 2)).repeat(count, axis=0).astype(np.float32)
    flat = np.full_like(faces, 127)
    frames = {CLEAR: faces, RELEASED: flat, "blur": faces, "pixelate": faces, "solid": flat, "one-face": flat}
    return support.evidence(
        subjects=subjects,
        people=subjects,
        classes=subjects // 5,
        boxes=np.tile(np.array([10, 10, 90, 90], np.float32), (count, 1)),
        looks={
            kind: support.look(clear if pictures is faces else hidden, frames=pictures, mesh=mesh)
            for kind, pictures in frames.items()
        },
        eye_distance=np.full(count, 40, np.float32),
    )


Found = tuple[list[Attack], StageStore]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, _a_few_steps: None) -> Found:
    store = StageStore(open_storage(str(tmp_path_factory.mktemp("workspace"))), "audit/looks")
    return trained_attacks(coloured(), "k-diff", store, used=(support.NAME,)), store


def test_findings_stand_beside_baselines_and_a_flat_ellipse_gives_nothing(found: Found) -> None:
    named = {(finding.name, finding.target): finding for finding in found[0]}
    assert named.keys() == {
        (WITH_PLAN, "rank-1"),
        *product((TRAINED, BOTH_RELEASED, TOGETHER, INVERSION), ("rank-1", "TAR")),
    }
    trained, inverted = named[TRAINED, "rank-1"], named[INVERSION, "rank-1"]
    assert trained.recognizer == TRAINED_HERE and trained.held_out
    assert inverted.recognizer == support.NAME and not inverted.held_out
    assert (trained.baselines[CLEAR].value or 0) > 0.95
    assert (trained.baselines["solid"].value or 0) < 0.2 and (trained.released.value or 0) < 0.2
    assert trained.identity is not None and trained.identity.low is not None and trained.identity.low < 0.05
    assert trained.released.chance == pytest.approx(1 / (PEOPLE / 2))
    assert trained.worst_person is not None and trained.worst_class is not None
    for finding in found[0]:  # only people who are attacked, and of each all photos but the one in the gallery
        assert finding.released.count == PEOPLE / 2 * (PHOTOS - 1), finding.name
    # Behind a flat ellipse the plan names the class of five, and within it nothing does.
    assert 0.05 < (named[WITH_PLAN, "rank-1"].baselines["solid"].value or 0) < 0.5


def test_baselines_are_attacked_once_for_all_releases_of_the_same_photos(
    found: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacked: list[bool] = []
    vectors = np.zeros((PEOPLE * PHOTOS, 512), np.float32)
    own: Answers = dict.fromkeys((TRAINED, f"{INVERSION} by {support.NAME}"), vectors)
    monkeypatch.setattr(suite, "attack", lambda *_, **__: attacked.append(True) or own)
    reported: list[tuple[str, str, int]] = []

    def report(stage: str, outcome: UnitResult, units: int) -> None:
        reported.append((stage, outcome.unit, units))

    again = trained_attacks(coloured(), "k-diff", found[1], used=(support.NAME,), report=report)
    assert len(attacked) == 1 and reported == [("train", kind, 3) for kind in (RELEASED, *FEW)]
    assert [finding.baselines for finding in again] == [finding.baselines for finding in found[0]]
    monkeypatch.setattr(suite, "DRAWN", 2)
    trained_attacks(coloured(), "k-diff", found[1], used=())
    assert len(attacked) == 4
