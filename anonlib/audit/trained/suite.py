"""The trained attacks, on a release and on each baseline, as they stand in a report.

What they make of the baselines depends on the originals alone, so it is kept in the workspace beside the looks, and a
second audit of the dataset trains on the release only.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from anonlib.audit.attacks.base import Probes, groups_of
from anonlib.audit.attacks.similarity import FAR
from anonlib.audit.evidence.evidence import BASELINES, CLEAR, RELEASED, Evidence, frame
from anonlib.audit.evidence.gather import Report
from anonlib.audit.findings import Attack
from anonlib.audit.trained.attacks import Preparation, invert, recognize, teachers
from anonlib.audit.trained.data import NETWORK, Anonymize, AttackerData, Recovered, recover, split
from anonlib.errors import NotFound
from anonlib.execution.base import UnitResult
from anonlib.faces import align
from anonlib.faces.embed import Recognizer
from anonlib.faces.mesh import five_points
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import load_engine
from anonlib.synthesis.redact import Redaction, redact
from anonlib.workspace.layout import StageStore

TRAINED, BOTH_RELEASED, INVERSION = "trained", "trained, both released", "inversion"
TRAINED_HERE = "an attacker trained here"
STEPS, DRAWN = 400, 200
"""Steps of the network that recognizes, and of the one that restores."""
MOST = 6000
"""Faces that an attacker learns from and goes after; more people are left out at random."""

_VERSION = "1"
_PARTS = ("ranks", "accepted", "threshold", "people")

Results = Mapping[str, Recovered]


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

    `method` is the release's, `store` where what is found of baselines is kept. Empty where there are too few people to
    learn from.
    """
    rows = _sample(evidence.subjects, seed)
    try:
        parts = split(evidence.subjects[rows], seed)
    except ValueError:
        return []
    found: dict[str, Results] = {}
    kinds = (RELEASED, *BASELINES)
    for kind in kinds:
        began = time.monotonic()
        data = data_of(evidence, kind, rows)
        attack = partial(_attack, data, _anonymize(method if kind == RELEASED else kind), device, seed)
        found[kind] = attack() if kind == RELEASED else _kept(store, data, kind, seed, attack)
        report("train", UnitResult(kind, faces=len(rows), seconds=time.monotonic() - began), len(kinds))
    data = data_of(evidence, CLEAR, rows)
    known = teachers(data, parts)
    clear = recover(known, known, data.people, parts)
    by = {name: recover(vectors, vectors, data.people, parts) for name, vectors in data.vectors.items()}
    found[CLEAR] = {name: by.get(name.partition(" by ")[2], clear) for name in found[RELEASED]}
    groups = [(part, name, members[rows]) for part, name, members in groups_of(evidence)]
    attacks = []
    for name, recovered in found[RELEASED].items():
        title, _, recognizer = name.partition(" by ")
        judge, held_out = recognizer or TRAINED_HERE, recognizer not in used
        probes = Probes(data.people, judge, held_out, groups, evidence.classes[rows], seed)
        results = {kind: by_name[name] for kind, by_name in found.items()}
        first, fifth = ({kind: result.hits(within) for kind, result in results.items()} for within in (1, 5))
        accepted = {kind: result.accepted for kind, result in results.items()}
        attacks += [
            probes.attack(title, "rank-1", first, recovered.chance, detailed=True),
            probes.attack(title, "rank-5", fifth, min(1.0, 5 * recovered.chance)),
            probes.attack(title, "TAR", accepted, FAR),
        ]
    return attacks


def data_of(evidence: Evidence, kind: str, rows: NDArray[np.int64]) -> AttackerData:
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


def _attack(data: AttackerData, anonymize: Anonymize | None, device: str, seed: int) -> Results:
    import torch

    network, threads = model_bytes(NETWORK), torch.get_num_threads()
    prepared = Preparation(data, anonymize=anonymize, device=device, seed=seed)
    recognition = recognize(prepared, network, steps=STEPS, threads=threads)
    judges = {name: Recognizer(name, load_engine(model_bytes(name))).embed for name in data.vectors if name != NETWORK}
    inverted, _ = invert(prepared, network, judges, steps=DRAWN, threads=threads)
    by_recognizer = {f"{INVERSION} by {name}": recovered for name, recovered in inverted.items()}
    return {TRAINED: recognition.trained, BOTH_RELEASED: recognition.parrot, **by_recognizer}


def _anonymize(method: str) -> Anonymize | None:
    """A redaction needs no secret, so an attacker can repeat it; the other methods need the job's."""
    return partial(redact, how=method) if method in get_args(Redaction) else None


def _sample(subjects: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Rows (m,) of whole people, MOST at most."""
    people = np.random.default_rng(seed).permutation(np.unique(subjects))
    photos = np.bincount(subjects, minlength=int(subjects.max(initial=-1)) + 1)[people]
    return np.flatnonzero(np.isin(subjects, people[np.cumsum(photos) <= MOST]))


def _kept(store: StageStore, data: AttackerData, kind: str, seed: int, attack: Callable[[], Results]) -> Results:
    """What was found before of the same faces by the same attackers, or what is found now."""
    settings = [_VERSION, kind, seed, STEPS, DRAWN, MODELS[NETWORK].sha256, sorted(data.vectors)]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for array in (data.released, data.people):
        digest.update(np.ascontiguousarray(array).tobytes())
    unit = f"{kind}-{digest.hexdigest()[:16]}"
    try:
        with np.load(io.BytesIO(store.arrays(f"learned/{unit}"))) as stored:
            names = [name.removesuffix("/ranks") for name in stored.files if name.endswith("/ranks")]
            values = {name: [stored[f"{name}/{part}"] for part in _PARTS] for name in names}
        return {
            name: Recovered(ranks, accepted, float(threshold), int(people))
            for name, (ranks, accepted, threshold, people) in values.items()
        }
    except NotFound:
        results = attack()
    arrays = {
        f"{name}/{part}": np.asarray(getattr(result, part)) for name, result in results.items() for part in _PARTS
    }
    sink = io.BytesIO()
    np.savez_compressed(sink, **arrays)  # type: ignore[arg-type]
    store.write_arrays(f"learned/{unit}", sink.getvalue())
    return results
