"""The attacks that are trained on anonymized photos of other people: recognition and inversion.

Recognition (arXiv 2506.12344; McPherson et al. 2016, arXiv 1609.00408, for mosaics and blurs): a ridge regression from
pixels to the recognizers' vectors of the clear photo, and a network. Either, or their sum, goes to attack: whichever
recognizes the people best who were kept aside. Inversion draws the clear face anew and asks recognizers that had no
part in the drawing; it adds no knowledge of the person in the photo, so every identity that it brings back was in the
release. No person who is attacked has part in training or in a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.trained.data import (
    NETWORK,
    Anonymize,
    AttackerData,
    DataSplit,
    Pixels,
    Points,
    Recovered,
    TrainingPairs,
    mean_reciprocal,
    recover,
    split,
)
from anonlib.audit.trained.linear import COARSE, fit_restorer, flat, ridge, small
from anonlib.privacy.clustering import normalized

Floats = NDArray[np.float32]
Embed = Callable[[Sequence[Pixels], Sequence[Points]], Floats]
"""Pictures and their five points -> unit rows: Recognizer.embed."""

MOVED = 2
"""Copies of each photo that the linear maps learn from."""


class Preparation:
    """What both attacks begin with: who is attacked, pairs to learn from, and a linear restorer.

    Raises ValueError if there are fewer than eight people.
    """

    def __init__(
        self, data: AttackerData, *, anonymize: Anonymize | None = None, device: str = "cpu", seed: int = 0
    ) -> None:
        self.data, self.device, self.seed = data, device, seed
        self.parts, self.pairs = split(data.people, seed), TrainingPairs(data, anonymize)
        random = np.random.default_rng(seed)
        self.restorer = fit_restorer(self.pairs, self.parts, MOVED, random)
        self._random = random

    def random(self) -> np.random.Generator:
        """A generator that goes on from the restorer's draws, the same for each attack."""
        return deepcopy(self._random)


@dataclass(frozen=True)
class Recognition:
    """`trained` against the clear gallery, `parrot` against a gallery of released photos.

    `chosen_by`: member -> mean of one over the right person's place, among the people kept aside.
    """

    trained: Recovered
    parrot: Recovered
    chosen_by: Mapping[str, float]


def recognize(prepared: Preparation, network: bytes, *, steps: int = 600, threads: int = 2) -> Recognition:
    """Train and attack; `network` are the bytes of data.NETWORK, of which 0 `steps` learn the head alone."""
    from anonlib.audit.trained.networks import answers, restored_crops, train_recognizer

    data, parts, pairs, device = prepared.data, prepared.parts, prepared.pairs, prepared.device
    clear, random = teachers(data, parts), prepared.random()
    coarse = flat(small(data.released, data.boxes, COARSE))
    learn = pairs.many(parts.learn, MOVED, random)

    def score(probes: Floats) -> float:
        return mean_reciprocal(probes, clear, data.people, parts.choose)

    def score_of_chosen(found: Floats) -> float:
        probes = np.zeros_like(clear)
        probes[parts.choose] = found
        return score(probes)

    pixel_map = ridge(
        flat(small(learn.released, learn.boxes, COARSE)), clear[learn.rows], coarse[parts.choose], score_of_chosen
    )
    pixels = normalized(pixel_map(coarse))
    with _torch_threads(threads):
        student = train_recognizer(
            network, pairs, parts, prepared.restorer, clear, steps=steps, device=device, seed=prepared.seed
        )
        views = restored_crops(prepared.restorer, data.released, data.boxes)
        learned = normalized(answers(student, views, device))
    members = {"pixels": pixels, "network": learned, "both": pixels + learned}
    chosen_by = {name: score(probes) for name, probes in members.items()}
    best = members[max(chosen_by, key=lambda name: chosen_by[name])]
    return Recognition(recover(best, clear, data.people, parts), recover(best, best, data.people, parts), chosen_by)


def invert(
    prepared: Preparation, network: bytes, recognizers: Mapping[str, Embed], *, steps: int = 500, threads: int = 2
) -> tuple[dict[str, Recovered], Pixels]:
    """What each of `recognizers` recovers from faces drawn anew, and these (n, SIDE, SIDE, 3).

    `network` are the bytes of data.NETWORK, which helps to train and may not judge: raises ValueError if it is
    among the recognizers.
    """
    import torch

    from anonlib.audit.trained.networks import draw_clear, train_unet

    if NETWORK in recognizers:
        raise ValueError(f"{NETWORK} helps to train the U-Net and cannot judge what it draws")
    data, parts, restorer, random = prepared.data, prepared.parts, prepared.restorer, prepared.random()
    learn = prepared.pairs.many(parts.learn, MOVED, random)
    with _torch_threads(threads):
        torch.manual_seed(prepared.seed)
        unet = train_unet(network, learn, restorer, random, steps, prepared.device)
        drawn = draw_clear(unet, restorer, data.released, data.boxes, prepared.device)
    rows = np.concatenate([parts.choose, parts.attack])
    points = restorer.find(data.released[rows], data.boxes[rows])
    recovered = {}
    for name, embed in recognizers.items():
        probes = np.zeros_like(data.vectors[name])
        probes[rows] = embed(list(drawn[rows]), list(points))
        recovered[name] = recover(probes, data.vectors[name], data.people, parts)
    return recovered, drawn


def teachers(data: AttackerData, parts: DataSplit) -> Floats:
    """The recognizers' vectors of the clear photos side by side (n, d), of unit length, each about its known mean."""
    centred = [normalized(vectors - vectors[parts.learn].mean(axis=0)) for vectors in data.vectors.values()]
    return normalized(np.concatenate(centred, axis=1))


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
