"""The attacks that are trained on anonymized photos of other people: recognition and inversion, as a report has them.

Recognition (arXiv 2506.12344; McPherson et al. 2016, arXiv 1609.00408, for mosaics and blurs) goes from pixels to the
recognizers' vectors of the clear photo. Inversion draws the clear face anew and asks recognizers that had no part in
the drawing. No person who is attacked has part in training or in a choice.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.base import Probes, groups_of
from anonlib.audit.attacks.similarity import FAR
from anonlib.audit.evidence.evidence import BASELINES, CLEAR, RELEASED, Evidence, frame
from anonlib.audit.evidence.gather import Report
from anonlib.audit.findings import Attack
from anonlib.audit.trained.data import NETWORK, AttackerData, recover, split, teachers
from anonlib.errors import NotFound
from anonlib.execution.base import UnitResult
from anonlib.faces import align
from anonlib.faces.embed import Recognizer
from anonlib.faces.mesh import five_points
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import has_bf16, load_engine
from anonlib.synthesis.redact import Redaction, redact
from anonlib.workspace.layout import StageStore

TRAINED, BOTH_RELEASED, INVERSION = "trained", "trained, both released", "inversion"
TOGETHER, WITH_PLAN = "trained, person's photos together", "trained, with the plan"
TRAINED_HERE = "an attacker trained here"
STEPS, DRAWN = 240, 160
"""Steps on a CPU, at most, of the networks that recognize and of the one that restores; on a GPU ten times as many."""
MOST = 6000
"""Faces that an attacker learns from and goes after; more people are left out at random."""

_VERSION = "4"

Answers = Mapping[str, NDArray[np.float32]]
"""Vectors (n, d) of released photos: those of `teachers` by TRAINED, a recognizer's by "inversion by NAME"."""
Results = Mapping[str, NDArray[np.float64]]
"""What each attack recovers, (2, n) of `recover`; of an inversion by its judge, "inversion by NAME"."""


def trained_attacks(
    evidence: Evidence,
    method: str,
    store: StageStore,
    *,
    used: Collection[str],
    device: str = "cpu",
    seed: int = 0,
    report: Report = lambda stage, outcome, units: None,
) -> list[Attack]:
    """The trained attack, against clear and against released galleries, and the inversion, by several recognizers.

    What is found of baselines is kept in `store` for the next audit. Empty where too few people can be learned from.
    """
    import torch

    people = np.random.default_rng(seed).permutation(np.unique(evidence.subjects))
    photos = np.bincount(evidence.subjects, minlength=int(evidence.subjects.max(initial=-1)) + 1)[people]
    rows = np.flatnonzero(np.isin(evidence.subjects, people[np.cumsum(photos) <= MOST]))
    try:
        parts = split(evidence.subjects[rows], seed)
    except ValueError:
        return []
    kinds, cores = (RELEASED, *BASELINES), len(os.sched_getaffinity(0))
    at_once = 1 if device != "cpu" else min(cores, len(kinds))

    def attacked(kind: str) -> tuple[str, Results, float]:
        began, how = time.monotonic(), method if kind == RELEASED else kind
        # A redaction needs no secret, so an attacker can repeat it; the other methods need the job's.
        data = data_of(evidence, kind, rows, parts, how if how in get_args(Redaction) else None)
        train = partial(attack, data, device=device, seed=seed)
        answers = train() if kind == RELEASED else _kept(store, data, kind, seed, train)
        return kind, results(answers, data), time.monotonic() - began

    found: dict[str, Results] = {}
    torch.set_num_threads(max(1, cores // at_once))
    with ThreadPoolExecutor(at_once) as pool:
        for kind, recovered, seconds in pool.map(attacked, kinds):
            found[kind] = recovered
            report("train", UnitResult(kind, faces=len(rows), seconds=seconds), len(kinds))
    data = data_of(evidence, CLEAR, rows, parts)
    found[CLEAR] = results(
        {TRAINED: teachers(data)} | {f"{INVERSION} by {name}": own for name, own in data.vectors.items()}, data
    )
    groups = [(part, name, members[rows]) for part, name, members in groups_of(evidence)]
    chance = 1 / len(np.unique(data.people[data.attack]))
    attacks = []
    for name in found[RELEASED]:
        title, _, recognizer = name.partition(" by ")
        judge, held_out = recognizer or TRAINED_HERE, recognizer not in used
        probes = Probes(data.people, judge, held_out, groups, data.classes, evidence.replaced[rows], seed)
        ranks = {kind: recovered[name][0] for kind, recovered in found.items()}
        first = {kind: np.where(np.isnan(places), places, places <= 1) for kind, places in ranks.items()}
        if title == WITH_PLAN:
            attacks.append(probes.attack(title, "rank-1", first))
            continue
        accepted = {kind: recovered[name][1] for kind, recovered in found.items()}
        attacks.append(probes.attack(title, "rank-1", first, chance, detailed=True))
        attacks.append(probes.attack(title, "TAR", accepted, FAR))
    return attacks


def data_of(
    evidence: Evidence,
    kind: str,
    rows: NDArray[np.int64],
    parts: tuple[NDArray[np.int64], ...],
    how: str | None = None,
) -> AttackerData:
    """The attacker's data of the faces in `rows` (m,), as one kind of photo shows them; `parts` of them, as of `split`.
    `how`: the redaction that an attacker can repeat."""
    boxes, meshes = evidence.boxes[rows], evidence.clear.mesh[rows]
    matrices = [frame(box) for box in boxes]
    corners = [align.apply(matrix, box.reshape(2, 2)).ravel() for matrix, box in zip(matrices, boxes, strict=True)]
    points = [align.apply(matrix, five_points(mesh)) for matrix, mesh in zip(matrices, meshes, strict=True)]
    learn, choose, attack = parts
    return AttackerData(
        clear=evidence.clear.frames[rows],
        released=evidence.looks[kind].frames[rows],
        boxes=np.array(corners, np.float32).reshape(-1, 4),
        points=np.array(points, np.float32).reshape(-1, 5, 2),
        people=evidence.subjects[rows],
        classes=evidence.classes[rows],
        vectors={name: vectors[rows] for name, vectors in evidence.clear.vectors.items()},
        learn=learn,
        choose=choose,
        attack=attack,
        seen=np.concatenate([vectors[rows] for vectors in evidence.looks[kind].vectors.values()], axis=1),
        anonymize=None if how is None else partial(redact, how=how),
    )


def attack(data: AttackerData, *, device: str = "cpu", seed: int = 0) -> Answers:
    """What networks that learned from other people make of released photos: vectors, and by inversion those of the
    recognizers that may judge: NETWORK helps to draw, so it may not."""
    from anonlib.audit.trained.networks import TrainedAttacker

    longer = 1 if device == "cpu" else 10
    attacker = TrainedAttacker(model_bytes(NETWORK), data, device, seed)
    answers = {TRAINED: attacker.recognize(teachers(data), STEPS * longer)}
    drawn, rows = attacker.draw(DRAWN * longer), attacker.asked
    points = attacker.restorer.find(data.released[rows], data.boxes[rows])
    for name in (name for name in data.vectors if name != NETWORK):
        own = answers[f"{INVERSION} by {name}"] = np.zeros_like(data.vectors[name])
        engine = load_engine(model_bytes(name), precision="bf16" if has_bf16() else "f32")
        own[rows] = Recognizer(name, engine).embed(list(drawn[rows]), list(points))
    return answers


def results(answers: Answers, data: AttackerData) -> Results:
    """Who is recovered: against clear and against released photos, a person's photos together, and with the plan."""
    clear, best = teachers(data), answers[TRAINED]
    found = {
        TRAINED: recover(data, best, clear),
        BOTH_RELEASED: recover(data, best, best),
        TOGETHER: recover(data, best, clear, together=True),
    }
    if (data.classes >= 0).any():
        found[WITH_PLAN] = recover(data, best, clear, planned=True)
    for name, own in data.vectors.items():
        if (title := f"{INVERSION} by {name}") in answers:
            found[title] = recover(data, answers[title], own)
    return found


def _kept(store: StageStore, data: AttackerData, kind: str, seed: int, train: Callable[[], Answers]) -> Answers:
    """The stored answers of the same attackers to the same faces, or new ones, which are stored."""
    settings = [_VERSION, kind, seed, STEPS, DRAWN, MODELS[NETWORK].sha256, sorted(data.vectors)]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for array in (data.released, data.people):
        digest.update(np.ascontiguousarray(array).tobytes())
    unit = f"{kind}-{digest.hexdigest()[:16]}"
    try:
        with np.load(io.BytesIO(store.arrays(f"learned/{unit}"))) as stored:
            return dict(stored)
    except NotFound:
        answers = train()
    sink = io.BytesIO()
    np.savez(sink, **answers)  # type: ignore[arg-type]
    store.write_arrays(f"learned/{unit}", sink.getvalue())
    return answers
