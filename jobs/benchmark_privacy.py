"""How long a plan takes, how much memory, and how well it groups faces into people: `python jobs/benchmark_privacy.py`.

The vectors are drawn, so that the people are known: two recognizers' vectors as `anonlib.privacy.fusion` joins
them, in the cones in which dlib's and faceres' lie. They are written to a file in half precision, and every plan
runs in a process of its own, whose peak memory is its own. BCubed (Bagga and Baldwin 1998) judges subjects against
people: precision falls where two people were merged, recall where one was split. `--exact` plans the same faces
once more with every pair compared, and says which share of the exact plan's pairs of faces of one subject the plan
has too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.methods import method_of, settings_of
from anonlib.methods.base import EarlierReleases
from anonlib.privacy import knn
from anonlib.privacy.fusion import KEPT, SHARE
from anonlib.privacy.keys import Keyring
from anonlib.stages.people import FaceVectors, people_of, persons_of
from anonlib.workspace.schemas import EMBEDDING_DIM

FACES = (100_000, 1_000_000)
PHOTOS = 5  # of a person, on average
K = 5
CONES = ((EMBEDDING_DIM, 0.8, 0.96, SHARE), (KEPT, 0.1, 0.75, 1 - SHARE))
"""Of each recognizer: dimensions, cosine of two people, cosine of two photos of one person, weight."""
BLOCK = 20_000  # people that are drawn at once
SEED = 1
KEYS = Keyring(bytes(32), "")
STEPS = ("subjects and ties", "persons", "classes and surrogates")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, nargs="+", default=FACES)
    parser.add_argument("--photos", type=int, default=PHOTOS)
    parser.add_argument("--k", type=int, default=K)
    parser.add_argument("--exact", action="store_true", help="also compare every pair (an hour for a million faces)")
    parser.add_argument("--folder", type=Path, help="where the vectors are written: half a kilobyte a face")
    parser.add_argument("--one", choices=("plan", "exact"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        found = planned(asked, asked.faces[0], asked.folder)
        print(json.dumps(found | {"peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return 0
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run, k = {asked.k}\n")
    sizes = []
    for faces in asked.faces:
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            draw(Path(folder), faces, asked.photos)
            sizes.append(in_its_own_process("plan", asked, faces, folder))
            if asked.exact:
                sizes[-1]["exact"] = in_its_own_process("exact", asked, faces, folder)
                sizes[-1]["of exact pairs"] = shared_pairs(*(read_subjects(folder, kind) for kind in ("exact", "plan")))
    print("\n".join(table(sizes)))
    return 0


def in_its_own_process(kind: str, asked: argparse.Namespace, faces: int, folder: str) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--one", kind, "--faces", str(faces), "--folder", folder]
    done = subprocess.run(
        [*command, "--photos", str(asked.photos), "--k", str(asked.k)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"benchmark_privacy: {faces} faces failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def planned(asked: argparse.Namespace, count: int, folder: Path) -> dict[str, Any]:
    """Plan the vectors in `folder` and write each face's subject there; seconds (wall, CPU) of each step and scores."""
    if asked.one == "exact":
        knn.EXACT_BELOW = count
    person = person_of_each(count, asked.photos)
    both = np.memmap(folder / "vectors", np.float16, "r", shape=(count, EMBEDDING_DIM + KEPT))
    rng = np.random.default_rng(SEED)
    people = int(person[-1]) + 1
    female, age = rng.choice((0.05, 0.95), people)[person], rng.uniform(20, 70, people)[person]
    faces = pa.table(
        {
            "face_id": pa.array([f"{face:x}" for face in range(count)]),
            "label": pa.nulls(count, pa.string()),
            "female": pa.array(female, pa.float32()),
            "age": pa.array(age, pa.float32()),
        }
    )
    clock = [(time.perf_counter(), time.process_time())]
    subjects = people_of(faces, FaceVectors(both[:, :EMBEDDING_DIM], both), KEYS)
    clock.append((time.perf_counter(), time.process_time()))
    persons = persons_of(subjects, np.ones(count, bool))
    first = np.unique(persons.of_face, return_index=True)[1].tolist()
    persons = replace(persons, portraits={number: [face] for number, face in enumerate(first)})
    clock.append((time.perf_counter(), time.process_time()))
    method = method_of(settings_of({"name": "k-diff", "k": asked.k}))
    assignment = method.plan(persons, KEYS, EarlierReleases())
    clock.append((time.perf_counter(), time.process_time()))
    np.save(folder / f"{asked.one}.npy", subjects.of_face)
    seconds = np.diff(np.array(clock), axis=0).round(2).tolist()
    return {
        "faces": count,
        "people": people,
        "seconds": dict(zip(STEPS, seconds, strict=True)),
        **bcubed(subjects.of_face, person),
        "persons": len(persons.ids),
        "classes": len(assignment.classes),
        "without a surrogate": sum(not of.surrogates for of in assignment.persons),
    }


# ---- people who never lived -----------------------------------------------------------------------------------


def person_of_each(faces: int, photos: int) -> NDArray[np.int64]:
    """The person (faces,) of every face, from 0 and in order: each has 1 to 2 * photos - 1 of them."""
    rng = np.random.default_rng(SEED)
    many = rng.integers(1, 2 * photos, size=faces)
    return np.repeat(np.arange(faces), many)[:faces]


def draw(folder: Path, faces: int, photos: int) -> None:
    """Write `vectors`: float16 rows (faces, d) of both recognizers, a block of people at a time."""
    person = person_of_each(faces, photos)
    out = np.memmap(folder / "vectors", np.float16, "w+", shape=(faces, EMBEDDING_DIM + KEPT))
    bounds = np.searchsorted(person, np.arange(0, int(person[-1]) + 1 + BLOCK, BLOCK))
    for block, (start, stop) in enumerate(pairwise(bounds)):
        out[start:stop] = drawn(person[start:stop] - block * BLOCK, block)
    out.flush()


def drawn(person: NDArray[np.int64], block: int) -> NDArray[np.float32]:
    """Fused unit vectors (n, d) of each of a block's people's photos, see CONES."""
    rng = np.random.default_rng((SEED, block))
    parts = []
    for dim, stranger, same, weight in CONES:
        # The direction of the cone, the person's own direction, and what differs between photos.
        people = rng.normal(size=(int(person[-1]) + 1, dim)).astype(np.float32) * math.sqrt((1 - stranger) / dim)
        people += np.float32(math.sqrt(stranger / dim))
        rows = people[person] / np.linalg.norm(people[person], axis=1, keepdims=True)
        rows += np.float32(math.sqrt((1 / same - 1) / dim)) * rng.normal(size=rows.shape).astype(np.float32)
        parts.append(math.sqrt(weight) * rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return np.concatenate(parts, axis=1)


# ---- how good it is -------------------------------------------------------------------------------------------


def read_subjects(folder: str, kind: str) -> NDArray[np.int64]:
    return np.asarray(np.load(Path(folder) / f"{kind}.npy"), np.int64)


def bcubed(subject: NDArray[np.int64], person: NDArray[np.int64]) -> dict[str, float]:
    """BCubed precision, recall and F of faces (n,); subjects that hold several people, people that several hold."""
    pair, count = joint(subject, person)
    squares = count.astype(np.float64) ** 2
    precision = float((squares / np.bincount(subject)[pair[0]]).sum() / len(subject))
    recall = float((squares / np.bincount(person)[pair[1]]).sum() / len(person))
    return {
        "precision": precision,
        "recall": recall,
        "f": 2 * precision * recall / (precision + recall),
        "merged": int((np.bincount(pair[0]) > 1).sum()),
        "split": int((np.bincount(pair[1]) > 1).sum()),
    }


def shared_pairs(expected: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    """The share of pairs of faces in one group of `expected` (n,) that are in one group of `found` (n,), too."""
    both = joint(expected, found)[1].astype(np.float64)
    alone = np.bincount(expected).astype(np.float64)
    return float((both * (both - 1)).sum() / max((alone * (alone - 1)).sum(), 1.0))


def joint(
    first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]:
    """Every (first, second) that has faces, and how many."""
    width = int(second.max()) + 1
    pair, count = np.unique(first * width + second, return_counts=True)
    return (pair // width, pair % width), count


# ---- the table ------------------------------------------------------------------------------------------------


def table(sizes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown: a column for each size."""
    rows = [("", *(f"{size['faces']:,} faces" for size in sizes)), ("---", *["---:"] * len(sizes))]
    rows += [("people", *(f"{size['people']:,}" for size in sizes))]
    for step in STEPS:
        cells = ("{:.1f} ({:.1f})".format(*size["seconds"][step]) for size in sizes)
        rows += [(f"{step}, s (CPU s)", *cells)]
    rows += [("peak RSS, MiB", *(f"{size['peak_rss_mib']:.0f}" for size in sizes))]
    for name, form in (
        *((score, ".4f") for score in ("precision", "recall", "f")),
        *((number, ",") for number in ("merged", "split", "persons", "classes", "without a surrogate")),
        ("of exact pairs", ".4f"),
    ):
        if name in sizes[0]:
            rows += [(NAMES.get(name, name), *(format(size[name], form) for size in sizes))]
    return [f"| {' | '.join(row)} |" for row in rows]


NAMES = {
    "precision": "BCubed precision",
    "recall": "BCubed recall",
    "f": "BCubed F",
    "merged": "subjects of several people",
    "split": "people in several subjects",
    "of exact pairs": "pairs of the exact plan that are found",
}


if __name__ == "__main__":
    raise SystemExit(main())
