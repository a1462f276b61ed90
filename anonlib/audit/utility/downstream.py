"""A downstream task: does a network that was trained on anonymized faces work on real ones?

A small network learns expressions from the aligned crops of half of the people, as the release shows them, and is
tested on clear crops of the other half; then the halves change places. It learns from clear crops and from every
baseline too, so the difference shows what the replacement costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.evidence.evidence import CLEAR, RELEASED
from anonlib.audit.findings import Measure
from anonlib.audit.statistics import Numbers, figure_of_sums, nothing
from anonlib.workspace.schemas import EXPRESSIONS

SURE = 0.9
"""Probability of an expression on the clear photo from which the network's word is a label: the task is an easy one."""
KINDS = ("neutral", "happy")
ENOUGH = 100
"""Photos of a kind below which nothing is trained: a network would learn the photos by heart."""
NAME = "expression learned from the release"

_LEARNED, _ROUNDS, _BATCH = 1200, 8, 32
_SOURCE = f"labels: the expression network on the clear photo, where it is sure of {SURE:.0%}"


def expression_labels(expression: NDArray[np.float32]) -> Numbers:
    """(n,) Numbers in KINDS, -1 for none: the network's word (n, 7) on the clear photo, where it is SURE."""
    shares = np.nan_to_num(expression)
    number = np.array([KINDS.index(name) if name in KINDS else -1 for name in EXPRESSIONS])
    return np.where(shares.max(axis=1) >= SURE, number[shares.argmax(axis=1)], -1)


def expression_task(
    crops: Mapping[str, NDArray[np.uint8]], labels: Numbers, subjects: Numbers, *, seed: int = 0
) -> Measure:
    """Balanced accuracy on clear faces of people who were not learned from.

    `crops`: kind of photo -> (n, s, s) grey, CLEAR and RELEASED among them; `labels` (n,) as of `expression_labels`;
    `subjects` (n,) number the people.
    """
    rows = np.flatnonzero(labels >= 0)
    who, kind = subjects[rows], labels[rows]
    people, person = np.unique(who, return_inverse=True)
    half = np.random.default_rng(seed).permutation(len(people))[person] % 2
    unit, chance, shown = "balanced accuracy", 1 / len(KINDS), np.eye(len(KINDS))[kind]
    if min(np.bincount(kind[half == side], minlength=len(KINDS)).min() for side in (0, 1)) < ENOUGH // 2:
        counts = np.bincount(kind, minlength=len(KINDS))
        photos = ", ".join(f"{count:,} {name}" for count, name in zip(counts, KINDS, strict=True))
        why = f"not trained: {photos}, and {ENOUGH} of each are needed; {_SOURCE}"
        return Measure(name=NAME, released=nothing(chance), unit=unit, note=why)

    def mean_recall(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        hits, all_of_kind = sums[:, : len(KINDS)], sums[:, len(KINDS) :]
        return np.asarray((hits / np.maximum(all_of_kind, 1)).mean(axis=1), np.float64)

    clear = _prepared(crops[CLEAR][rows])
    learned = {side: _chosen(kind, half != side, seed) for side in (0, 1)}
    figures = {}
    for name, pixels in crops.items():
        faces = clear if name == CLEAR else _prepared(pixels[rows])
        right = np.zeros((len(rows), 1))
        for side, chosen in learned.items():
            tested = half == side
            right[tested, 0] = _trained(faces[chosen], kind[chosen], clear[tested], seed) == kind[tested]
        columns = np.concatenate([shown * right, shown], axis=1)
        figures[name] = figure_of_sums(columns, who, mean_recall, count=len(kind), chance=chance, seed=seed)
    note = (
        f"neutral or happy, learned from {len(learned[1]):,} and {len(learned[0]):,} faces of either half of the "
        f"people, tested on clear faces of the other half (intervals are of who is tested, not of what was learned); "
        f"{_SOURCE}"
    )
    return Measure(name=NAME, released=figures.pop(RELEASED), baselines=figures, unit=unit, note=note)


def _chosen(kind: Numbers, allowed: NDArray[np.bool_], seed: int) -> Numbers:
    """Rows to learn from: as many of each kind, at most _LEARNED together."""
    generator, of_kind = np.random.default_rng(seed), [np.flatnonzero(allowed & (kind == k)) for k in range(len(KINDS))]
    each = min(_LEARNED // len(KINDS), *map(len, of_kind))
    return np.sort(np.concatenate([generator.permutation(rows)[:each] for rows in of_kind]))


def _prepared(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, 1, s, s): of mean 0 and deviation 1 each, so that light is not what is learned."""
    centred = crops.astype(np.float32) - crops.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    return np.asarray((centred / np.maximum(centred.std(axis=(1, 2), keepdims=True), 1.0))[:, None], np.float32)


def _trained(learned: NDArray[np.float32], kind: Numbers, tested: NDArray[np.float32], seed: int) -> Numbers:
    """What a network that learned from `learned` says of `tested`; the same seed gives the same answers.

    Four strided convolutions, the mean of what they find in each of 4 x 4 places, a readout: 80,000 numbers.
    """
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[Any] = []
        for inputs, outputs in ((1, 16), (16, 32), (32, 64), (64, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        network = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.5), nn.Linear(64 * 16, len(KINDS)))
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
        steps = _ROUNDS * -(-len(learned) // _BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
        faces, wanted = torch.from_numpy(learned), torch.from_numpy(kind)
        network.train()
        for _ in range(_ROUNDS):
            for rows in torch.randperm(len(faces)).split(_BATCH):
                batch = faces[rows]
                mirrored = torch.rand(len(rows), 1, 1, 1) < 0.5
                loss = cross_entropy(network(torch.where(mirrored, batch.flip(3), batch)), wanted[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        network.eval()
        with torch.inference_mode():
            answers = [network(part).argmax(dim=1) for part in torch.from_numpy(tested).split(256)]
        return np.asarray(torch.cat(answers).numpy(), np.int64)
