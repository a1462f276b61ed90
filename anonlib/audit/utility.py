"""The utility of a release: what its faces keep, how distributions shift, and what can be learned from it.

Judged by networks, so each number is an agreement of two estimates. A face that cannot be read any more has lost its
gender, age and expression; errors are those of faces that can be read. The shift of a distribution is total variation,
half the sum of the differences of its shares, which stay where one face loses its smile and another gains one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.evidence.evidence import BASELINES, CLEAR, JUDGES, RELEASED, Evidence, Look, frame
from anonlib.audit.evidence.pixels import edge_contrast, hair_of, share_changed
from anonlib.audit.findings import Figure, Measure
from anonlib.audit.statistics import Numbers, Shares, figure_of_sums, nothing, rate
from anonlib.faces import align, topology
from anonlib.faces.gaze import gaze_error
from anonlib.privacy.classes import stratum_of
from anonlib.workspace.schemas import EXPRESSIONS

SURE = 0.7
"""Least probability of a gender, female or male, from which an original counts."""
LARGE = 150
"""Longer side of a face's box, px, from which its skin shows pores and grain."""
CRISP = (0.8, 1.25)
"""Bounds of skin that is as crisp as the clear photo's, as a ratio."""
FOUND = "faces found again"
REAL = "called real by {}"
SHIFT = (
    "shares among the faces that can still be read; the interval is never below nought, so its upper end is what to "
    "look at"
)

Values = Callable[[Look], NDArray[Any]]
Kinds = NDArray[np.str_]
"""(n,) The kind that a network takes each face for, "" where it cannot be read."""


def genders(look: Look) -> Kinds:
    """female or male."""
    return np.where(np.isnan(look.female), "", np.where(look.female > 0.5, "female", "male"))


def age_bands(look: Look) -> Kinds:
    """The bands of ages, as the plan cuts them."""
    return np.array(["" if np.isnan(age) else stratum_of(1.0, age)[1] for age in look.age.tolist()], np.str_)


def expressions(look: Look) -> Kinds:
    """The likeliest of EXPRESSIONS."""
    known = ~np.isnan(look.expression).any(axis=1)
    return np.where(known, np.array(EXPRESSIONS)[np.nan_to_num(look.expression).argmax(axis=1)], "")


def mesh_error(before: NDArray[np.float32], after: NDArray[np.float32]) -> Shares:
    """(n,) Mean distance of the points of meshes (n, 468, 2 or 3) in the image, over the original's eye distance."""
    left, right = (before[:, list(eye), :2].mean(axis=1) for eye in (topology.LEFT_EYE, topology.RIGHT_EYE))
    moved = np.linalg.norm(after[:, :, :2] - before[:, :, :2], axis=2).mean(axis=1)
    return np.asarray(moved / np.maximum(np.linalg.norm(right - left, axis=1), 1e-6), np.float64)


def measures(evidence: Evidence, *, seed: int = 0) -> list[Measure]:
    """Everything that is measured of utility, over all n faces of released photos, beside the baselines."""
    before, subjects, looks = evidence.clear, evidence.subjects, evidence.looks
    absolute = {FOUND, *map(REAL.format, JUDGES)}  # measured on clear photos, too

    def measure(
        name: str, unit: str, note: str, values: Values, *, higher: bool = False, chance: float | None = None
    ) -> Measure:
        kinds = (RELEASED, CLEAR, *BASELINES) if name in absolute else (RELEASED, *BASELINES)
        shares = {kind: np.asarray(values(looks[kind]), np.float64) for kind in kinds}
        figures = {kind: rate(share, subjects, chance=chance, seed=seed) for kind, share in shares.items()}
        return _measure(name, unit, note, figures, higher)

    def agreement(name: str, read: Callable[[Look], Kinds], counts: NDArray[np.bool_], note: str) -> Measure:
        """A share of the originals that count; what cannot be read any more is lost."""
        kinds = read(before)
        counts = counts & (kinds != "")
        _, commonest = np.unique(kinds[counts], return_counts=True)
        chance = float(commonest.max() / commonest.sum()) if len(commonest) else None
        note += "; a face that cannot be read any more counts as lost; chance is always saying the commonest answer"
        return measure(
            name, "share", note, lambda look: np.where(counts, read(look) == kinds, np.nan), higher=True, chance=chance
        )

    def real(column: int) -> Values:
        return lambda look: np.where(np.isnan(look.real[:, column]), np.nan, look.real[:, column] > 0.5)

    def turned(column: int) -> Values:
        return lambda look: np.abs((look.pose[:, column].astype(float) - before.pose[:, column] + 180) % 360 - 180)

    fits, sure = "where a mesh fits", (before.female > SURE) | (before.female < 1 - SURE)
    every, smiles = np.ones(len(subjects), bool), np.isin(expressions(before), ("neutral", "happy"))
    posed, landmarks = f"of the pose that the mesh fits, {fits}", f"mean over the 468 points of the mesh, {fits}"
    sure_of = f"of clear faces whose gender the network is sure of ({SURE:.0%})"
    edges = f"of edges in the face to those of the clear one, {fits}; above 1 is grain or seams"
    # What the frames show beside the face, and where what was changed in them ends.
    outlines = [align.apply(frame(box), mesh) for mesh, box in zip(before.mesh, evidence.boxes, strict=True)]
    hair = [hair_of(*shown) for shown in zip(before.frames, outlines, strict=True)]
    large = (evidence.boxes[:, 2:] - evidence.boxes[:, :2]).max(axis=1) >= LARGE

    def crisp(look: Look) -> Shares:
        return np.where(large, look.crispness.astype(float) / np.maximum(before.crispness, 1e-6), np.nan)

    def as_crisp(look: Look) -> Shares:
        ratio = crisp(look)
        return np.where(np.isnan(ratio), np.nan, (ratio >= CRISP[0]) & (ratio <= CRISP[1]))

    def step(look: Look) -> Shares:
        return np.array([edge_contrast(*pair) for pair in zip(before.frames, look.frames, strict=True)], np.float64)

    def touched(look: Look) -> Shares:
        return np.array([share_changed(*three) for three in zip(before.frames, look.frames, hair, strict=True)], float)

    gaze = "between where the eyes look by the iris network, where an eye is open on both"
    pores = f"of the Laplacian on the skin at the photo's own px, faces of {LARGE} px and more, {fits}"
    seam = "step in grey across the edge of what was changed over that of the clear photo there; 1 shows no edge"
    kept_hair = "of px beside the face, above the mouth, that are no skin: hair, a cap, what lies behind"
    called = f"a network that nothing was tuned to, {fits}; what it says of clear photos is what to compare with"
    sharpness, age = np.maximum(before.sharpness, 1e-6), before.age.astype(float)
    found = [
        measure(FOUND, "share", "by the detector, at the place of the original", lambda look: look.found, higher=True),
        measure("landmark error", "eye distances", landmarks, lambda look: mesh_error(before.mesh, look.mesh)),
        *(measure(f"{axis} error", "degrees", posed, turned(n)) for n, axis in enumerate(("yaw", "pitch", "roll"))),
        measure("gaze error", "degrees", gaze, lambda look: gaze_error(before.eyes, look.eyes)),
        agreement("expression kept", expressions, smiles, "of clear faces that look neutral or happy"),
        agreement("gender kept", genders, sure, sure_of),
        agreement("age band kept", age_bands, every, "under 35, under 50, or older"),
        measure("age error", "years", f"between two estimates, {fits}", lambda look: np.abs(look.age - age)),
        measure("sharpness", "ratio", edges, lambda look: look.sharpness.astype(float) / sharpness, higher=True),
        measure("skin sharpness", "ratio", pores, crisp, higher=True),
        measure("skin as sharp", "share", f"ratio of {CRISP[0]} to {CRISP[1]}, {pores}", as_crisp, higher=True),
        measure("edge contrast", "ratio", seam, step),
        measure("hair changed", "share", kept_hair, touched),
        *(measure(REAL.format(name), "share", called, real(n), higher=True) for n, name in enumerate(JUDGES)),
    ]
    for name, read in (("gender", genders), ("age band", age_bands), ("expression", expressions)):
        kinds = (RELEASED, *BASELINES)
        moved = {kind: total_variation(read(before), read(looks[kind]), subjects, seed=seed) for kind in kinds}
        found.append(_measure(f"shift of {name}", "total variation", SHIFT, moved))
    return found


def _measure(name: str, unit: str, note: str, figures: dict[str, Figure], higher: bool = False) -> Measure:
    released = figures.pop(RELEASED)
    better: Literal["higher", "lower"] = "higher" if higher else "lower"
    return Measure(name=name, released=released, baselines=figures, unit=unit, better=better, note=note)


def total_variation(before: Kinds, after: Kinds, subjects: Numbers, *, seed: int = 0) -> Figure:
    """Between the shares of kinds before and after, each over the faces that can be read then."""
    names = np.setdiff1d(np.concatenate([before, after]), [""])
    # (n, 2 kinds), as counts are summed by person: is face n of this kind before, and after?
    columns = np.concatenate([before[:, None] == names, after[:, None] == names], axis=1).astype(np.float64)

    def distance(sums: Shares) -> Shares:
        counts = sums.reshape(len(sums), 2, len(names))
        totals = counts.sum(axis=2, keepdims=True)
        shares = counts / np.maximum(totals, 1)
        apart = np.abs(shares[:, 0] - shares[:, 1]).sum(axis=1) / 2
        return np.where((totals > 0).all(axis=(1, 2)), apart, np.nan)

    return figure_of_sums(columns, subjects, distance, count=int((after != "").sum()), seed=seed)


# ---- a downstream task --------------------------------------------------------------------------------------------

TASK = "expression learned from the release"
TASK_KINDS = ("neutral", "happy")
TASK_SURE = 0.9
"""Probability of an expression on the clear photo from which the network's word is a label: the task is an easy one."""
ENOUGH = 100
"""Photos of a kind below which nothing is trained: a network would learn the photos by heart."""

_LEARNED, _ROUNDS, _BATCH = 1200, 8, 32
_SOURCE = f"labels: the expression network on the clear photo, where it is sure of {TASK_SURE:.0%}"


def expression_labels(expression: NDArray[np.float32]) -> Numbers:
    """(n,) Numbers in TASK_KINDS, -1 for none: the network's word (n, 7) on the clear photo, where it is TASK_SURE."""
    shares = np.nan_to_num(expression)
    number = np.array([TASK_KINDS.index(name) if name in TASK_KINDS else -1 for name in EXPRESSIONS])
    return np.where(shares.max(axis=1) >= TASK_SURE, number[shares.argmax(axis=1)], -1)


def expression_task(evidence: Evidence, *, seed: int = 0) -> Measure:
    """Does a network that was trained on anonymized faces work on real ones? The balanced accuracy on clear faces.

    A small network learns expressions from the aligned crops of half of the people, as the release and each baseline
    shows them, and is tested on clear crops of the other half; then the halves change places.
    """
    labels = expression_labels(evidence.clear.expression)
    rows = np.flatnonzero(labels >= 0)
    who, kind = evidence.subjects[rows], labels[rows]
    people, person = np.unique(who, return_inverse=True)
    half = np.random.default_rng(seed).permutation(len(people))[person] % 2
    unit, chance, shown = "balanced accuracy", 1 / len(TASK_KINDS), np.eye(len(TASK_KINDS))[kind]
    if min(np.bincount(kind[half == side], minlength=len(TASK_KINDS)).min() for side in (0, 1)) < ENOUGH // 2:
        counts = np.bincount(kind, minlength=len(TASK_KINDS))
        photos = ", ".join(f"{count:,} {name}" for count, name in zip(counts, TASK_KINDS, strict=True))
        why = f"not trained: {photos}, and {ENOUGH} of each are needed; {_SOURCE}"
        return Measure(name=TASK, released=nothing(chance), unit=unit, note=why)

    def mean_recall(sums: Shares) -> Shares:
        hits, all_of_kind = sums[:, : len(TASK_KINDS)], sums[:, len(TASK_KINDS) :]
        return np.asarray((hits / np.maximum(all_of_kind, 1)).mean(axis=1), np.float64)

    clear = _prepared(evidence.clear.crops[rows])
    learned = {side: _chosen(kind, half != side, seed) for side in (0, 1)}
    figures = {}
    for name, look in evidence.looks.items():
        faces = clear if name == CLEAR else _prepared(look.crops[rows])
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
    return _measure(TASK, unit, note, figures, higher=True)


def _chosen(kind: Numbers, allowed: NDArray[np.bool_], seed: int) -> Numbers:
    """Rows to learn from: as many of each kind, at most _LEARNED together."""
    generator, of_kind = (
        np.random.default_rng(seed),
        [np.flatnonzero(allowed & (kind == k)) for k in range(len(TASK_KINDS))],
    )
    each = min(_LEARNED // len(TASK_KINDS), *map(len, of_kind))
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
        network = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.5), nn.Linear(64 * 16, len(TASK_KINDS)))
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
