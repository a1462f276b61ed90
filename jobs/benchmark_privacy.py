"""How long a plan takes, how much memory, and how well it groups faces into people: `python jobs/benchmark_privacy.py`.

The vectors are drawn, so that the people are known: two recognizers' vectors as `anonlib.privacy.clustering` joins
them, in the cones in which dlib's and faceres' lie. They are written to a file in half precision, and every plan
runs in a process of its own, whose peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.methods import method_of, settings_of
from anonlib.methods.base import EarlierReleases
from anonlib.privacy.clustering import KEPT, SHARE
from anonlib.privacy.keys import Keyring
from anonlib.privacy.knn import nearest
from anonlib.stages.people import people_of, persons_of, same_fused
from anonlib.workspace.schemas import EMBEDDING_DIM

FACES = (100_000, 1_000_000)
PHOTOS = 5  # of a person, on average
K = 5
CONES = ((EMBEDDING_DIM, 0.8, 0.96, SHARE), (KEPT, 0.1, 0.75, 1 - SHARE))
"""Of each recognizer: dimensions, cosine of two people, cosine of two photos of one person, weight."""
COMPARED = 1_000_000  # faces up to which true neighbours are looked for
BLOCK = 20_000  # people that are drawn at once
SEED = 1
KEYS = Keyring(bytes(32), "")
STEPS = ("subjects and ties", "persons", "classes and surrogates")
ROWS = {
    "precision": ("BCubed precision", ".4f"),
    "recall": ("BCubed recall", ".4f"),
    "neighbours": ("true neighbours that the index finds", ".4f"),
    "f": ("BCubed F", ".4f"),
    "mixed": ("subjects of several people", ","),
    "scattered": ("people in several subjects", ","),
    "persons": ("persons", ","),
    "classes": ("classes", ","),
    "bare": ("without a surrogate", ","),
}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, nargs="+", default=FACES)
    parser.add_argument("--photos", type=int, default=PHOTOS)
    parser.add_argument("--k", type=int, default=K)
    parser.add_argument("--folder", type=Path, help="where the vectors are written: half a kilobyte a face")
    parser.add_argument("--queries", type=int, default=2000, help="faces whose neighbours are compared with exact ones")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        peak = Peak()
        figures = planned(options, options.faces[0]) | {"peak_mib": peak.stop()}
        print(json.dumps(figures | {"neighbours": found_again(options, options.faces[0])}))
        return 0
    from evaluate_subjects import bcubed, in_several  # it loads more than a plan does, which would count as memory

    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run, k = {options.k}\n")
    sizes = []
    for faces in options.faces:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            draw(Path(folder), faces, options.photos)
            figures = in_its_own_process(options, faces, folder)
            person, subject = person_of_each(faces, options.photos), np.load(f"{folder}/subjects.npy")
            figures |= bcubed(person, subject)
            figures |= {"mixed": in_several(person, subject), "scattered": in_several(subject, person)}
            sizes.append(figures)
    print("\n".join(table(sizes)))
    return 0


def in_its_own_process(options: argparse.Namespace, faces: int, folder: str) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--one", "--faces", str(faces), "--folder", folder]
    command += ["--photos", str(options.photos), "--k", str(options.k), "--queries", str(options.queries)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmark_privacy: {faces} faces failed:\n{done.stderr}")
    return dict(json.loads(done.stdout))


def planned(options: argparse.Namespace, count: int) -> dict[str, Any]:
    """Plan the vectors in the folder and write each face's subject there; seconds (wall, CPU) of each step."""
    person = person_of_each(count, options.photos)
    both = vectors_of(options.folder, count)
    rng = np.random.default_rng(SEED)
    people = int(person[-1]) + 1
    female, age = rng.choice((0.05, 0.95), people)[person], rng.uniform(20, 70, people)[person]
    faces = pa.table(
        {
            "face_id": pa.array([f"{face:x}" for face in range(count)]),
            "label": pa.nulls(count, pa.string()),
            "female": pa.array(female, pa.float32()),
            "age": pa.array(age, pa.float32()),
            "tone": pa.array(np.full(len(age), 140.0), pa.float32()),
        }
    )
    clock = [(time.perf_counter(), time.process_time())]
    subjects = people_of(faces, (both[:, :EMBEDDING_DIM], both), KEYS)
    clock.append((time.perf_counter(), time.process_time()))
    persons = persons_of(subjects, np.ones(count, bool))
    first = np.unique(persons.of_face, return_index=True)[1].tolist()
    persons = replace(persons, portraits={number: [face] for number, face in enumerate(first)})
    clock.append((time.perf_counter(), time.process_time()))
    assignment = method_of(settings_of({"name": "k-diff", "k": options.k, "texture": "average"})).plan(
        persons, KEYS, EarlierReleases()
    )
    clock.append((time.perf_counter(), time.process_time()))
    np.save(options.folder / "subjects.npy", subjects.of_face)
    return {
        "seconds": dict(zip(STEPS, np.diff(np.array(clock), axis=0).round(2).tolist(), strict=True)),
        "persons": len(persons.ids),
        "classes": len(assignment.classes),
        "bare": sum(not of.surrogates for of in assignment.persons),
    }


def vectors_of(folder: Path, count: int) -> NDArray[np.float16]:
    return np.memmap(folder / "vectors", np.float16, "r", shape=(count, EMBEDDING_DIM + KEPT))


def found_again(options: argparse.Namespace, count: int) -> float:
    """The share of some faces' true neighbours, each pair compared, that the index of the plan finds.

    Not a number beyond COMPARED faces, since the comparison holds all vectors in single precision.
    """
    if count > COMPARED:
        return math.nan
    both = vectors_of(options.folder, count)
    queries = both[np.linspace(0, count - 1, min(options.queries, count), dtype=np.int64)]
    ask = partial(nearest, queries, both, count=K, floor=same_fused(count))
    true, found = ask(exact_below=count), ask()
    hits = sum(len(np.intersect1d(a[a >= 0], b[b >= 0])) for a, b in zip(true, found, strict=True))
    return hits / max(np.count_nonzero(true >= 0), 1)


class Peak:
    """The most memory of this process, asked every five seconds: shared pages divided among those that share them."""

    def __init__(self) -> None:
        self._most, self._ended = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(5):
            self._look()

    def _look(self) -> None:
        self._most = max(self._most, psutil.Process().memory_full_info().pss / 2**20)

    def stop(self) -> float:
        """MiB."""
        self._ended.set()
        self._thread.join()
        self._look()
        return self._most


# ---- people who never lived -----------------------------------------------------------------------------------


def person_of_each(faces: int, photos: int) -> NDArray[np.int64]:
    """The person (faces,) of every face, from 0 and in order: each has 1 to 2 * photos - 1 of them."""
    many = np.random.default_rng(SEED).integers(1, 2 * photos, size=faces)
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


def table(sizes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown: a column for each size."""
    rows = [["", *(f"{size['faces']:,} faces" for size in sizes)], ["---", *["---:"] * len(sizes)]]
    rows += [["people", *(f"{size['people']:,}" for size in sizes)]]
    for step in STEPS:
        rows += [[f"{step}, s (CPU s)", *("{:.1f} ({:.1f})".format(*size["seconds"][step]) for size in sizes)]]
    rows += [
        ["peak memory (PSS, mapped pages of the vectors too), MiB", *(f"{size['peak_mib']:.0f}" for size in sizes)]
    ]
    for name, (title, form) in ROWS.items():
        rows += [[title, *(format(size[name], form) for size in sizes)]]
    return [f"| {' | '.join(row)} |" for row in rows]


if __name__ == "__main__":
    raise SystemExit(main())
