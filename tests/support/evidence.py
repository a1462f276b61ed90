"""Evidence made by hand: people as points, whose photos scatter about them, for what judges a release."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.audit.attacks.similarity import first_of_each
from anonlib.audit.evidence.evidence import BASELINES, CLEAR, CONTROLS, CROP, JUDGES, RELEASED, SIDE, Evidence, Look
from anonlib.audit.evidence.published import PlanRecord, Published
from anonlib.verification.certificate import K_ANONYMITY, Claim
from anonlib.workspace.schemas import EXPRESSIONS, EYES, MESH_POINTS

NAME = "fr-feature"


def units(count: int, seed: int, size: int = 16) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).normal(size=(count, size))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def blurred(centres: NDArray[np.float32], photos: int, noise: float, seed: int) -> NDArray[np.float32]:
    """`photos` unit vectors around each centre, person by person."""
    moved = np.repeat(centres, photos, axis=0)
    moved = moved + noise * np.random.default_rng(seed).normal(size=moved.shape)
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32)


def look(vectors: NDArray[np.float32], **changes: Any) -> Look:
    """Faces that are found again, of which nothing but the vectors (n, d) of NAME is known."""
    count = len(vectors)

    def nothing(*shape: int) -> NDArray[np.float32]:
        return np.full((count, *shape), np.nan, np.float32)

    whole = Look(
        vectors={NAME: vectors},
        found=np.ones(count, bool),
        female=nothing(),
        age=nothing(),
        expression=nothing(len(EXPRESSIONS)),
        pose=nothing(3),
        mesh=nothing(MESH_POINTS, 2),
        sharpness=nothing(),
        crispness=nothing(),
        eyes=nothing(EYES),
        real=nothing(len(JUDGES)),
        crops=np.zeros((count, CROP, CROP), np.uint8),
        frames=np.zeros((count, SIDE, SIDE, 3), np.uint8),
    )
    return replace(whole, **changes)


def looking(whole: Evidence, kind: str, **changes: Any) -> Evidence:
    """`whole` with another look of one kind; `vectors` may be given as an array, which is NAME's."""
    if isinstance(changes.get("vectors"), np.ndarray):
        changes["vectors"] = {NAME: changes["vectors"]}
    return replace(whole, looks={**whole.looks, kind: replace(whole.looks[kind], **changes)})


def evidence(**changes: Any) -> Evidence:
    """60 people with 5 photos each in classes of 5, released as they are, wearing the next class's surrogate.

    Blurred and pixelated faces are as clear; under the solid ellipse, and with one face for everybody, all photos look
    alike, with nothing found.
    """
    subjects = np.repeat(np.arange(60), 5)
    clear = blurred(units(60, 1), 5, 0.05, 2)
    count = len(subjects)
    hidden = look(np.repeat(units(1, 3), count, axis=0), found=np.zeros(count, bool))
    seen = {name: look(clear) for name in (CLEAR, RELEASED, *BASELINES)}
    whole = Evidence(
        faces=[f"shard/{number}#0" for number in range(count)],
        subjects=subjects,
        names=np.array([f"p{number:02d}" for number in subjects]),
        labelled=True,
        people=subjects,
        classes=subjects // 5,
        worn=(subjects // 5 + 1) % 12,
        averaged=first_of_each(subjects),
        replaced=np.ones(count, bool),
        eye_distance=np.full(count, 40, np.float32),
        boxes=np.tile(np.array([10, 10, 90, 90], np.float32), (count, 1)),
        looks=seen | dict.fromkeys(("solid", *CONTROLS), hidden),
        donors={NAME: clear[::5]},
        donor_people=np.arange(60),
        donor_classes=np.arange(60) // 5,
    )
    return replace(whole, **changes)


def averaged() -> Evidence:
    """People of many dimensions, who show the average of the class whose surrogate they wear, as k-diff has it."""
    clear = blurred(units(60, 1, 64), 5, 0.05, 2)
    whole = looking(evidence(), CLEAR, vectors=clear)
    means = np.stack([clear[whole.classes == one].mean(axis=0) for one in range(12)])
    seen = means[whole.worn] + 0.02 * np.random.default_rng(8).normal(size=clear.shape)
    return looking(whole, RELEASED, vectors=np.asarray(seen / np.linalg.norm(seen, axis=1, keepdims=True), np.float32))


def digest(number: int) -> str:
    """What a face that wears surrogate `number` shows of it."""
    return f"{number:064x}"


def published(whole: Evidence, rows: dict[str, list[Any]] | None = None, **changes: Any) -> Published:
    """What a k-diff release of `whole` says, k = 5, with nothing in a row but the surrogate and `rows` by column."""
    shown = [digest(one) if one >= 0 else None for one in whole.worn.tolist()]
    plan = PlanRecord(
        person=dict(zip(whole.faces, whole.people.tolist(), strict=True)),
        class_of=dict(zip(whole.faces, whole.classes.tolist(), strict=True)),
        donated={},
        by_digest={},
        sizes=[(5, 5)] * (int(whole.classes.max(initial=-1)) + 1),
    )
    said = Published(
        faces=whole.faces,
        manifest=pa.table(
            {
                "surrogate_digest": pa.array(shown, pa.string()),
                "fallback": pa.nulls(len(shown), pa.string()),
                **(rows or {}),
            }
        ),
        names=whole.names.tolist(),
        evaluated=False,
        clustered=False,
        plan=plan,
        tables={},
        claim=Claim(K_ANONYMITY, k=5),
    )
    return replace(said, **changes)
