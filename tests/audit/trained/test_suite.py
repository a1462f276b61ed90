"""Attackers that learn, as findings: beside every baseline, on rows that were attacked, and the baselines only once."""

from __future__ import annotations

import numpy as np
import pytest

from anonlib.audit.evidence.evidence import BASELINES, CLEAR, RELEASED, SIDE, Evidence
from anonlib.audit.findings import Attack
from anonlib.audit.trained import suite as module
from anonlib.audit.trained.data import Recovered, split
from anonlib.audit.trained.suite import BOTH_RELEASED, INVERSION, TRAINED, TRAINED_HERE, trained_attacks
from anonlib.execution.base import UnitResult
from anonlib.storage import open_storage
from anonlib.workspace.layout import StageStore
from anonlib.workspace.schemas import MESH_POINTS
from tests.support.evidence import NAME, evidence, look

PEOPLE, PHOTOS = 40, 2
FEW = ("blur", "solid")


def coloured() -> Evidence:
    """People who are told by the colour of their face, which blur keeps, a mosaic too, and a flat ellipse does not."""
    random = np.random.default_rng(0)
    subjects = np.repeat(np.arange(PEOPLE), PHOTOS)
    count = len(subjects)
    tint = random.integers(40, 215, (PEOPLE, 2, 2, 3))[subjects]
    faces = tint.repeat(SIDE // 2, axis=1).repeat(SIDE // 2, axis=2)
    faces = np.clip(faces + random.integers(-6, 7, faces.shape), 0, 255).astype(np.uint8)
    meant = tint.reshape(count, -1) - 127.0
    clear = meant @ random.standard_normal((meant.shape[1], 512))
    clear = np.asarray(clear / np.linalg.norm(clear, axis=1, keepdims=True), np.float32)
    mesh = random.uniform(30, 70, (1, MESH_POINTS, 2)).repeat(count, axis=0).astype(np.float32)
    flat = np.full_like(faces, 127)
    frames = {CLEAR: faces, RELEASED: flat, "blur": faces, "pixelate": faces, "solid": flat}
    whole = evidence(
        subjects=subjects,
        people=subjects,
        classes=subjects // 5,
        boxes=np.tile(np.array([10, 10, 90, 90], np.float32), (count, 1)),
    )
    looks = {kind: look(clear, frames=some, mesh=mesh) for kind, some in frames.items()}
    assert set(looks) == {CLEAR, RELEASED, *BASELINES}
    return type(whole)(**{**whole.__dict__, "looks": looks, "eye_distance": np.full(count, 40, np.float32)})


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Attack], StageStore]:
    room = StageStore(open_storage(str(tmp_path_factory.mktemp("workspace"))), "audit/looks")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "STEPS", 0)
        patched.setattr(module, "DRAWN", 1)
        patched.setattr(module, "BASELINES", FEW)
        return trained_attacks(coloured(), "k-diff", room, used=(NAME,)), room


def one(attacks: list[Attack], name: str, target: str) -> Attack:
    (attack,) = [attack for attack in attacks if (attack.name, attack.target) == (name, target)]
    return attack


def test_what_survives_a_baseline_is_recovered_and_a_flat_ellipse_gives_nothing(
    found: tuple[list[Attack], StageStore],
) -> None:
    attack = one(found[0], TRAINED, "rank-1")
    assert attack.recognizer == TRAINED_HERE and attack.held_out
    assert (attack.baselines[CLEAR].value or 0) > 0.95
    assert (attack.baselines["blur"].value or 0) > 0.5
    assert (attack.baselines["solid"].value or 0) < 0.2 and (attack.released.value or 0) < 0.2
    assert attack.excess is not None and attack.excess.low is not None and attack.excess.low < 0.05
    assert attack.released.chance == pytest.approx(1 / (PEOPLE / 2))
    assert attack.worst_person is not None and attack.worst_class is not None


def test_only_photos_of_people_who_are_attacked_are_counted(found: tuple[list[Attack], StageStore]) -> None:
    attacked = split(coloured().subjects, 0).attack
    people = len(np.unique(coloured().subjects[attacked]))
    for attack in found[0]:
        assert attack.released.count == len(attacked) - people, attack.name


def test_every_attack_has_its_targets_and_says_who_judged(found: tuple[list[Attack], StageStore]) -> None:
    names = {(attack.name, attack.target) for attack in found[0]}
    assert names == {
        (name, target) for name in (TRAINED, BOTH_RELEASED, INVERSION) for target in ("rank-1", "rank-5", "TAR")
    }
    inverted = one(found[0], INVERSION, "rank-1")
    assert inverted.recognizer == NAME and not inverted.held_out


def test_baselines_are_attacked_once_for_all_releases_of_the_same_photos(
    found: tuple[list[Attack], StageStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    attacked: list[bool] = []
    own = {
        name: Recovered(np.full(len(coloured().subjects), np.nan), np.full(len(coloured().subjects), np.nan), 1, 9)
        for name in (TRAINED, BOTH_RELEASED, f"{INVERSION} by {NAME}")
    }
    monkeypatch.setattr(module, "_attack", lambda *given: attacked.append(True) or own)
    monkeypatch.setattr(module, "STEPS", 0)
    monkeypatch.setattr(module, "DRAWN", 1)
    monkeypatch.setattr(module, "BASELINES", FEW)
    said: list[str] = []

    def report(stage: str, outcome: UnitResult, units: int) -> None:
        said.append(outcome.unit)
        assert (stage, units) == ("train", 3)

    again = trained_attacks(coloured(), "k-diff", found[1], used=(NAME,), report=report)
    assert len(attacked) == 1 and said == [RELEASED, *FEW]
    assert [{kind: figure.value for kind, figure in one.baselines.items()} for one in again] == [
        {kind: figure.value for kind, figure in one.baselines.items()} for one in found[0]
    ]
    monkeypatch.setattr(module, "DRAWN", 2)
    trained_attacks(coloured(), "k-diff", found[1], used=())
    assert len(attacked) == 4
