"""The attackers that learn, on a release and on each baseline, as they stand in a report.

What they make of the baselines depends on the originals alone, so it is kept in the workspace beside the looks, and a
second audit of the dataset trains on the release only.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.groups import groups_of
from anonlib.audit.attacks.rates import Shares
from anonlib.audit.attacks.result import made
from anonlib.audit.attacks.verify import FAR
from anonlib.audit.evidence.evidence import BASELINES, CLEAR, RELEASED, Evidence
from anonlib.audit.findings import Attack
from anonlib.audit.trained.data import Again, AttackerData, frame, split
from anonlib.audit.trained.inversion import invert
from anonlib.audit.trained.ranks import Recovered, recover
from anonlib.audit.trained.recognition import teachers, train
from anonlib.audit.trained.recognizer import NETWORK
from anonlib.errors import NotFound
from anonlib.execution.base import UnitResult
from anonlib.faces import align
from anonlib.faces.embed import Recognizer
from anonlib.faces.mesh import five_points
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import load_engine
from anonlib.synthesis.redact import Redaction, redact
from anonlib.workspace.layout import AuditStore

TRAINED, BOTH_RELEASED, INVERSION = "trained", "trained, both released", "inversion"
HERE = "an attacker trained here"
STEPS, PAINTED = 400, 200
"""Steps of the network that recognizes, and of the one that restores."""
MOST = 6000
"""Faces that an attacker learns from and goes after; more people are left out by lot."""

_VERSION = "1"

Report = Callable[[str, UnitResult, int], None]
Results = Mapping[str, Recovered]


def learned(
    evidence: Evidence,
    method: str,
    store: AuditStore,
    *,
    used: Collection[str],
    device: str = "cpu",
    seed: int = 0,
    report: Report = lambda stage, outcome, units: None,
) -> list[Attack]:
    """The trained attack, against clear and against released galleries, and the inversion, by two recognizers.

    `method` is the release's, `store` where what is found of baselines is kept. Empty where there are too few people to
    learn from.
    """
    rows = _by_lot(evidence.subjects, seed)
    try:
        parts = split(evidence.subjects[rows], seed)
    except ValueError:
        return []
    found: dict[str, Results] = {}
    kinds = (RELEASED, *BASELINES)
    for kind in kinds:
        began = time.monotonic()
        held = held_of(evidence, kind, rows)
        again = _again(method if kind == RELEASED else kind)
        attack = partial(_attacked, held, again, device, seed)
        found[kind] = attack() if kind == RELEASED else _kept(store, held, kind, seed, attack)
        report("train", UnitResult(kind, faces=len(rows), seconds=time.monotonic() - began), len(kinds))
    held = held_of(evidence, CLEAR, rows)
    known = teachers(held, parts)
    clear = recover(known, known, held.people, parts)
    by = {name: recover(vectors, vectors, held.people, parts) for name, vectors in held.vectors.items()}
    found[CLEAR] = {name: by.get(name.partition(" by ")[2], clear) for name in found[RELEASED]}
    groups = [(how, name, there[rows]) for how, name, there in groups_of(evidence)]
    classes = evidence.classes[rows]
    attacks = []
    for name, own in found[RELEASED].items():
        title, _, recognizer = name.partition(" by ")
        common = {"recognizer": recognizer or HERE, "held_out": not recognizer or recognizer not in used, "seed": seed}
        for target, chance, values in _targets(found, name, own.chance):
            detailed = {"groups": groups, "classes": classes} if target == "rank-1" else {}
            attacks.append(made(title, target, values, held.people, chance=chance, **common, **detailed))  # type: ignore[arg-type]
    return attacks


def held_of(evidence: Evidence, kind: str, rows: NDArray[np.int64]) -> AttackerData:
    """What an attacker holds of the faces in `rows` (m,) as one kind of photo shows them."""
    boxes = evidence.boxes[rows]
    matrices = [frame(box) for box in boxes]
    corners = [align.apply(matrix, box.reshape(2, 2)).ravel() for matrix, box in zip(matrices, boxes, strict=True)]
    points = [
        align.apply(matrix, five_points(mesh)) for matrix, mesh in zip(matrices, evidence.clear.mesh[rows], strict=True)
    ]
    return AttackerData(
        clear=evidence.clear.frames[rows],
        released=evidence.looks[kind].frames[rows],
        boxes=np.array(corners, np.float32).reshape(-1, 4),
        points=np.array(points, np.float32).reshape(-1, 5, 2),
        people=evidence.subjects[rows],
        vectors={name: vectors[rows] for name, vectors in evidence.clear.vectors.items()},
    )


def _attacked(held: AttackerData, again: Again | None, device: str, seed: int) -> Results:
    import torch

    network, threads = model_bytes(NETWORK), torch.get_num_threads()
    taught = train(held, network, again=again, steps=STEPS, threads=threads, device=device, seed=seed)
    judges = {name: Recognizer(name, load_engine(model_bytes(name))).embed for name in held.vectors if name != NETWORK}
    restored = invert(held, network, judges, again=again, steps=PAINTED, threads=threads, device=device, seed=seed)
    inverted = {f"{INVERSION} by {name}": one for name, one in restored.recovered.items()}
    return {TRAINED: taught.trained, BOTH_RELEASED: taught.parrot, **inverted}


def _targets(found: Mapping[str, Results], name: str, chance: float) -> Iterable[tuple[str, float, dict[str, Shares]]]:
    for target, within in (("rank-1", 1), ("rank-5", 5)):
        yield target, min(1.0, within * chance), {kind: one[name].hits(within) for kind, one in found.items()}
    yield "TAR", FAR, {kind: one[name].accepted for kind, one in found.items()}


def _again(method: str) -> Again | None:
    """A redaction can be made by anybody; the rest needs the job's secret."""
    return partial(redact, how=method) if method in get_args(Redaction) else None


def _by_lot(subjects: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Rows (m,) of whole people, MOST at most."""
    people = np.random.default_rng(seed).permutation(np.unique(subjects))
    photos = np.bincount(subjects, minlength=int(subjects.max(initial=-1)) + 1)[people]
    return np.flatnonzero(np.isin(subjects, people[np.cumsum(photos) <= MOST]))


def _kept(store: AuditStore, held: AttackerData, kind: str, seed: int, attack: Callable[[], Results]) -> Results:
    """What was found before of the same faces by the same attackers, or what is found now."""
    told = [_VERSION, kind, seed, STEPS, PAINTED, MODELS[NETWORK].sha256, sorted(held.vectors)]
    digest = hashlib.sha256(json.dumps(told).encode())
    for array in (held.released, held.people):
        digest.update(np.ascontiguousarray(array).tobytes())
    name = f"{kind}-{digest.hexdigest()[:16]}"
    try:
        with np.load(io.BytesIO(store.learned(name))) as stored:
            names = [name.removesuffix("/ranks") for name in stored.files if name.endswith("/ranks")]
            return {
                name: Recovered(
                    stored[f"{name}/ranks"],
                    stored[f"{name}/accepted"],
                    float(stored[f"{name}/threshold"]),
                    int(stored[f"{name}/people"]),
                )
                for name in names
            }
    except NotFound:
        results = attack()
    sink = io.BytesIO()
    np.savez_compressed(
        sink,
        **{
            f"{name}/{part}": np.asarray(getattr(one, part))
            for name, one in results.items()
            for part in ("ranks", "accepted", "threshold", "people")
        },  # type: ignore[arg-type]
    )
    store.write_learned(name, sink.getvalue())
    return results
