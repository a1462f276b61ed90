"""The trained attack: who is in an anonymized photo, asked of what was trained on anonymized photos of other people.

Two members are trained: a ridge regression from pixels to the recognizers' vectors of the clear photo, and a network
(student.py). Either, or their sum, goes to attack: whichever recognizes the people best who were kept aside. Nobody who
is attacked has part in training or in that choice. Source of the setting: arXiv 2506.12344; McPherson et al. 2016,
arXiv 1609.00408, for mosaics and blurs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.trained.data import Again, AttackerData, DataSplit, TrainingPairs, split
from anonlib.audit.trained.linear import COARSE, Ridge, fit_restorer, flat, ridge, small
from anonlib.audit.trained.ranks import Recovered, placed, recover
from anonlib.privacy.clustering import normalized

Floats = NDArray[np.float32]

MOVED = 2
"""Copies of each photo that the linear maps learn from."""


@dataclass(frozen=True)
class TrainedAttack:
    """What `member` recovers: `trained` against the clear gallery, `parrot` against a gallery of released photos.

    `chosen_by`: member -> mean of one over the right person's place, among the people kept aside. `steps` of the
    network and `seconds` of all.
    """

    trained: Recovered
    parrot: Recovered
    member: str
    chosen_by: Mapping[str, float]
    steps: int
    seconds: float


def train(
    held: AttackerData,
    network: bytes,
    *,
    again: Again | None = None,
    steps: int = 600,
    threads: int = 2,
    device: str = "cpu",
    seed: int = 0,
) -> TrainedAttack:
    """Train on some of the people of `held`, attack the others; `network` are the bytes of student.NETWORK.

    With 0 `steps` the network keeps its weights and only its head is learnt. Raises ValueError if there are fewer than
    eight people.
    """
    import torch

    from anonlib.audit.trained.recognizer import RecognizerTraining, answers, restored_crops, school

    began, before = time.monotonic(), torch.get_num_threads()
    torch.set_num_threads(threads)
    parts, pairs = split(held.people, seed), TrainingPairs(held, again)
    random = np.random.default_rng(seed)
    clear = teachers(held, parts)
    restorer = fit_restorer(pairs, parts, MOVED, random)
    schooling = RecognizerTraining(steps=steps, device=device, seed=seed)
    student = school(network, held, pairs, parts, restorer, clear, schooling)
    pixels = normalized(_pixel_ridge(pairs, parts, clear, random)(flat(small(held.released, held.boxes, COARSE))))
    views = restored_crops(restorer, held.released, held.boxes)
    taught = normalized(answers(student, views, device))
    torch.set_num_threads(before)
    members = {"pixels": pixels, "network": taught, "both": pixels + taught}
    chosen_by = {name: _score(one, clear, held, parts) for name, one in members.items()}
    best = max(chosen_by, key=lambda name: chosen_by[name])
    return TrainedAttack(
        recover(members[best], clear, held.people, parts),
        recover(members[best], members[best], held.people, parts),
        best,
        chosen_by,
        steps,
        time.monotonic() - began,
    )


def teachers(held: AttackerData, parts: DataSplit) -> Floats:
    """The recognizers' vectors of the clear photos side by side (n, d), of unit length, each about its known mean."""
    centred = [normalized(one - one[parts.learn].mean(axis=0)) for one in held.vectors.values()]
    return normalized(np.concatenate(centred, axis=1))


def _pixel_ridge(pairs: TrainingPairs, parts: DataSplit, clear: Floats, random: np.random.Generator) -> Ridge:
    held, learn = pairs.held, pairs.many(parts.learn, MOVED, random)
    own = flat(small(held.released[parts.choose], held.boxes[parts.choose], COARSE))

    def score(answers: Floats) -> float:
        probes = np.zeros_like(clear)
        probes[parts.choose] = answers
        return _score(probes, clear, held, parts)

    return ridge(flat(small(learn.released, learn.boxes, COARSE)), clear[learn.rows], own, score)


def _score(probes: Floats, clear: Floats, held: AttackerData, parts: DataSplit) -> float:
    return float((1 / placed(probes, clear, held.people, parts.choose)).mean())
