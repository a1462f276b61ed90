"""A task that a release is for: does a network trained on anonymized faces work on real ones?

A small convolutional network learns expressions from the aligned crops of half of the people, as the release shows
them, and is tested on clear crops of the other half; then the halves change places. The same network learns from the
clear crops and from every baseline, so what differs is what the faces were turned into. Faces that cannot be found any
more are learned from too, since the manifest says where they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.audit.evidence.evidence import CLEAR, RELEASED, Evidence
from anonlib.audit.findings import Figure, Measure
from anonlib.audit.statistics import Numbers, figure_of_sums, nothing
from anonlib.datasets import label
from anonlib.job import Job
from anonlib.workspace.schemas import EXPRESSIONS

SURE = 0.9
"""Probability of an expression on the clear photo from which the network's word is a label."""
KINDS = ("neutral", "happy")
ENOUGH = 100
"""Photos of a kind below which nothing is trained: a network would learn the photos by heart."""

FIELDS = ("expression", "emotion")
"""Kept fields that a user of the release would learn from."""
NAME = "expression learned from the release"

_SIDE = 64
_LEARNED = 1200
_ROUNDS = 8
_BATCH = 32
_SPOKEN = {"neutral": "neutral", "happy": "happy", "happiness": "happy"}


@dataclass(frozen=True)
class Labels:
    """`kind` (n,): number in KINDS, -1 for none; `source`: where they come from, in words."""

    kind: Numbers
    source: str


def labels_of(job: Job, evidence: Evidence) -> Labels:
    """The dataset's own, if the release keeps a field of FIELDS, else the network's."""
    field = next((name for name in job.config.keep_fields if name.removeprefix("json:") in FIELDS), None)
    return labels_of_network(evidence.clear.expression) if field is None else labels_of_dataset(job, evidence, field)


def labels_of_dataset(job: Job, evidence: Evidence, field: str) -> Labels:
    """What the dataset's own `field` says of each photo's face; other words than neutral and happy are none."""
    words: dict[str, str | None] = {}
    for shard in job.shards:
        words |= {f"{shard.shard_id}/{sample.key}": label(sample, field) for sample in job.dataset.read(shard)}
    spoken = [(words.get(face.rpartition("#")[0]) or "").lower() for face in evidence.faces]
    kind = [KINDS.index(_SPOKEN[word]) if word in _SPOKEN else -1 for word in spoken]
    return Labels(np.array(kind, np.int64), f"labels: the dataset's field {field}")


def labels_of_network(expression: NDArray[np.float32]) -> Labels:
    """What the expression network says of clear faces (n, 7) where it is SURE, which makes the task an easy one."""
    likeliest, sure = np.nan_to_num(expression).argmax(axis=1), np.nan_to_num(expression).max(axis=1) >= SURE
    kind = np.full(len(expression), -1, np.int64)
    for number, name in enumerate(KINDS):
        kind[sure & (likeliest == EXPRESSIONS.index(name))] = number
    return Labels(kind, f"labels: the expression network on the clear photo, where it is sure of {SURE:.0%}")


def expression_task(
    crops: Mapping[str, NDArray[np.uint8]], labels: Labels, subjects: Numbers, *, seed: int = 0
) -> Measure:
    """Balanced accuracy on clear faces of people who were not learned from.

    `crops`: kind of photo -> (n, s, s, 3) RGB, CLEAR and RELEASED among them; `subjects` (n,) number the people.
    """
    rows = np.flatnonzero(labels.kind >= 0)
    who, kind = subjects[rows], labels.kind[rows]
    half, unit = _halves(who, seed), "balanced accuracy"
    few = min(np.bincount(kind[half == side], minlength=len(KINDS)).min() for side in (0, 1))
    if few < ENOUGH // 2:
        counts = np.bincount(kind, minlength=len(KINDS))
        photos = ", ".join(f"{count:,} {name}" for count, name in zip(counts, KINDS, strict=True))
        why = f"not trained: {photos}, and {ENOUGH} of each are needed; {labels.source}"
        return Measure(name=NAME, released=nothing(1 / len(KINDS)), unit=unit, note=why)
    clear = _prepared(crops[CLEAR][rows])
    learned = {side: _chosen(kind, half != side, seed) for side in (0, 1)}
    found: dict[str, Figure] = {}
    for name, pixels in crops.items():
        shown = clear if name == CLEAR else _prepared(pixels[rows])
        right = np.zeros(len(rows), bool)
        for side, chosen in learned.items():
            tested = half == side
            right[tested] = _trained(shown[chosen], kind[chosen], clear[tested], seed) == kind[tested]
        found[name] = balanced_accuracy(right, kind, who, seed=seed)
    note = (
        f"neutral or happy, learned from {len(learned[1]):,} and {len(learned[0]):,} faces of either half of the "
        f"people, tested on clear faces of the other half (intervals are of who is tested, not of what was learned); "
        f"{labels.source}"
    )
    return Measure(name=NAME, released=found.pop(RELEASED), baselines=found, unit=unit, note=note)


def balanced_accuracy(right: NDArray[np.bool_], kind: Numbers, subjects: Numbers, *, seed: int = 0) -> Figure:
    """The mean over kinds of the share that is `right` (n,), with its 95 % interval by people."""
    shown = np.eye(len(KINDS))[kind]

    def mean_recall(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        hits, all_of_kind = sums[:, : len(KINDS)], sums[:, len(KINDS) :]
        return np.asarray((hits / np.maximum(all_of_kind, 1)).mean(axis=1), np.float64)

    columns = np.concatenate([shown * right[:, None], shown], axis=1)
    return figure_of_sums(columns, subjects, mean_recall, count=len(kind), chance=1 / len(KINDS), seed=seed)


def _halves(subjects: Numbers, seed: int) -> Numbers:
    """(n,) 0 or 1, the same for all photos of a person."""
    names, person = np.unique(subjects, return_inverse=True)
    return np.asarray(np.random.default_rng(seed).permutation(len(names))[person] % 2, np.int64)


def _chosen(kind: Numbers, allowed: NDArray[np.bool_], seed: int) -> Numbers:
    """Rows to learn from: as many of each kind, at most _LEARNED together."""
    generator = np.random.default_rng(seed)
    of_kind = [np.flatnonzero(allowed & (kind == number)) for number in range(len(KINDS))]
    each = min(_LEARNED // len(KINDS), *map(len, of_kind))
    return np.sort(np.concatenate([generator.permutation(rows)[:each] for rows in of_kind]))


def _prepared(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, 1, 64, 64): grey, of mean 0 and deviation 1 each, so that neither light nor colour is what is learned."""
    greys = (cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in crops)
    shrunk = np.stack([cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for grey in greys])
    shrunk = shrunk.astype(np.float32)
    shrunk -= shrunk.mean(axis=(1, 2), keepdims=True)
    shrunk /= np.maximum(shrunk.std(axis=(1, 2), keepdims=True), 1.0)
    return shrunk[:, None]


def _trained(learned: NDArray[np.float32], kind: Numbers, tested: NDArray[np.float32], seed: int) -> Numbers:
    """What a network that learned from `learned` says of `tested`; the same seed gives the same answers."""
    import torch
    from torch.nn.functional import cross_entropy

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network()
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


def _network() -> Any:
    """Four strided convolutions, the mean of what they find in each of 4 x 4 places, a readout: 80,000 numbers."""
    from torch import nn

    layers: list[Any] = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.5), nn.Linear(64 * 16, len(KINDS)))
