"""The inversion attack: paint the clear face anew, then ask recognizers that had no part in the painting.

A painter (painter.py) is trained on pairs of clear and released photos of the attacker's own people. It starts from
what a linear map restores. It adds no knowledge of who is asked for, so every identity that it brings back was in the
release.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.trained.data import Again, AttackerData, Pixels, Points, TrainingPairs, split
from anonlib.audit.trained.linear import fit_restorer
from anonlib.audit.trained.ranks import Recovered, recover
from anonlib.audit.trained.recognition import MOVED

Embed = Callable[[Sequence[Pixels], Sequence[Points]], NDArray[np.float32]]
"""Pictures and their five points -> unit rows: Recognizer.embed."""


@dataclass(frozen=True)
class Inversion:
    """What each recognizer recovers from the painted faces, which are `painted` (n, SIDE, SIDE, 3)."""

    recovered: Mapping[str, Recovered]
    painted: Pixels
    steps: int
    seconds: float


def invert(
    held: AttackerData,
    network: bytes,
    recognizers: Mapping[str, Embed],
    *,
    again: Again | None = None,
    steps: int = 500,
    threads: int = 2,
    device: str = "cpu",
    seed: int = 0,
) -> Inversion:
    """Train on some of the people of `held`, paint all, and attack the others by each of `recognizers`.

    `network` are the bytes of student.NETWORK, which helps to train and may not judge: raises ValueError if it is
    among the recognizers, or if there are fewer than eight people.
    """
    import torch

    from anonlib.audit.trained.recognizer import NETWORK
    from anonlib.audit.trained.unet import paint, trained_painter

    if NETWORK in recognizers:
        raise ValueError(f"{NETWORK} helps to train the painter and cannot judge what it paints")
    began, before = time.monotonic(), torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    parts, pairs = split(held.people, seed), TrainingPairs(held, again)
    restorer = fit_restorer(pairs, parts, MOVED, random)
    learn = pairs.many(parts.learn, MOVED, random)
    painter = trained_painter(network, learn, restorer, random, steps, device)
    painted = paint(painter, restorer, held.released, held.boxes, device)
    torch.set_num_threads(before)
    rows = np.concatenate([parts.choose, parts.attack])
    points = restorer.find(held.released[rows], held.boxes[rows])
    recovered = {}
    for name, embed in recognizers.items():
        clear = held.vectors[name]
        seen = np.zeros_like(clear)
        seen[rows] = embed(list(painted[rows]), list(points))
        recovered[name] = recover(seen, clear, held.people, parts)
    return Inversion(recovered, painted, steps, time.monotonic() - began)
