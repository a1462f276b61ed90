"""How long it takes to find who is who and who hides with whom, and how well: `python jobs/benchmark_privacy.py`.

The embeddings are drawn, so that who is who is known: as dlib's, they sit in a narrow cone, where two people have a
cosine of .8 and two photos of one person .96. Every size runs in a process of its own, whose peak memory is its own.
BCubed (Bagga and Baldwin 1998) judges subjects against people: precision falls where two people were merged, recall
where one was split. Information loss is compared with MDAV's on as many people as MDAV takes in minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anonlib.privacy.classes import form_classes
from anonlib.privacy.clustering import cluster, templates
from anonlib.privacy.keys import Keyring
from anonlib.privacy.microaggregation import information_loss, mdav, microaggregate
from anonlib.privacy.surrogate_choice import shuffled
from anonlib.stages.people import same_person

FACES = (100_000, 1_000_000)
PHOTOS = 5  # of a person, on average
REFERENCE = 20_000  # people whose classes MDAV forms too
K = 5
PEOPLE = 0.8  # cosine of two people
PHOTOS_ALIKE = 0.96  # cosine of two photos of one person
DECAY = 0.0  # 0: people differ in every direction alike; 1.2: as the variances of dlib's embeddings of LFW fall
DIM = 128
SEED = 1
KEYS = Keyring(bytes(32), "")
PARTS = ("subjects", "classes", "loss")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--faces", type=int, nargs="+", default=FACES)
    parser.add_argument("--photos", type=int, default=PHOTOS)
    parser.add_argument("--reference", type=int, default=REFERENCE)
    parser.add_argument("--k", type=int, default=K)
    parser.add_argument("--decay", type=float, default=DECAY)
    parser.add_argument("--one", choices=("size", "loss"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        found = one_loss(asked) if asked.one == "loss" else one_size(asked)
        print(json.dumps(found | {"peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return 0
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run, k = {asked.k}\n")
    if {"subjects", "classes"} & set(asked.parts):
        sizes = [in_its_own_process("size", asked, faces) for faces in asked.faces]
        print("\n".join(sizes_table(sizes)))
    if "loss" in asked.parts:
        print(loss_line(in_its_own_process("loss", asked, asked.reference * asked.photos)))
    return 0


def in_its_own_process(what: str, asked: argparse.Namespace, faces: int) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--one", what, "--faces", str(faces), "--parts"]
    command += [*asked.parts, "--photos", str(asked.photos), "--k", str(asked.k), "--decay", str(asked.decay)]
    done = subprocess.run([*command, "--reference", str(asked.reference)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmark_privacy: {faces} faces failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def one_size(asked: argparse.Namespace) -> dict[str, Any]:
    """Subjects of faces, or people as they are; their classes; and how good both are."""
    watch = Stopwatch()
    count = asked.faces[0]
    person = person_of_each(count, asked.photos)
    found: dict[str, Any] = {"faces": count, "people": int(person[-1]) + 1}
    if "subjects" in asked.parts:
        embeddings = drawn_faces(person, asked.decay)
        watch.start()
        subject = cluster(embeddings, threshold=same_person(len(embeddings)))
        watch.stop("cluster")
        template = templates(embeddings, subject, int(subject.max()) + 1)
        watch.stop("templates")
        found |= bcubed(subject, person)
        owner, photos = majority(subject, person), np.bincount(subject)
        del embeddings
    else:
        template, owner, photos = drawn_people(int(person[-1]) + 1, asked.decay), np.unique(person), np.bincount(person)
    if "classes" in asked.parts:
        strata = drawn_strata(len(template))
        watch.start()
        order = shuffled([str(one) for one in range(len(template))], KEYS)
        classes, left = form_classes(photos, strata, order, k=asked.k)
        watch.stop("classes")
        members = [one.members for one in classes]
        real = [len(set(owner[list(one)].tolist())) >= asked.k for one in members]
        found |= {"classes": len(classes), "left": len(left), "real": float(np.mean(real))}
        found |= {"largest": max(map(len, members))}
    return found | {"seconds": watch.seconds}


def one_loss(asked: argparse.Namespace) -> dict[str, Any]:
    """MDAV beside what classes are formed by, on the same people and without strata."""
    people = drawn_people(asked.reference, asked.decay)
    watch = Stopwatch()
    watch.start()
    reference = mdav(people, asked.k)
    watch.stop("mdav")
    scalable = microaggregate(people, asked.k)
    watch.stop("microaggregate")
    losses = {"mdav": information_loss(people, reference), "microaggregate": information_loss(people, scalable)}
    return {"people": len(people), "losses": losses, "seconds": watch.seconds}


class Stopwatch:
    """`seconds` of each stage by name: on the wall, and of all cores, which a busy machine changes less."""

    def __init__(self) -> None:
        self.seconds: dict[str, tuple[float, float]] = {}
        self.start()

    def start(self) -> None:
        self._wall, self._cores = time.perf_counter(), time.process_time()

    def stop(self, stage: str) -> None:
        """The stage ends here and the next one begins."""
        self.seconds[stage] = time.perf_counter() - self._wall, time.process_time() - self._cores
        self.start()


# ---- people who never lived -----------------------------------------------------------------------------------


def person_of_each(faces: int, photos: int) -> NDArray[np.int64]:
    """The person (faces,) of every face, from 0 and in order: each has 1 to 2 * photos - 1 of them."""
    rng = np.random.default_rng(SEED)
    many = rng.integers(1, 2 * photos, size=faces)
    return np.repeat(np.arange(faces), many)[:faces]


def drawn_people(count: int, decay: float) -> NDArray[np.float32]:
    """Unit templates (count, 128) in a cone round one direction: two of them have a cosine of about PEOPLE."""
    rng = np.random.default_rng(SEED + 1)
    spread = (1 + np.arange(DIM) / 3) ** (-decay / 2)
    spread = np.sqrt(1 - PEOPLE) * spread / np.linalg.norm(spread)
    people = rng.normal(size=(count, DIM)).astype(np.float32) * spread.astype(np.float32)
    people += np.sqrt(PEOPLE / DIM).astype(np.float32)
    return people / np.linalg.norm(people, axis=1, keepdims=True)


def drawn_faces(person: NDArray[np.int64], decay: float) -> NDArray[np.float32]:
    """Unit embeddings (n, 128) of each person's photos: two of them have a cosine of about PHOTOS_ALIKE."""
    rng = np.random.default_rng(SEED + 2)
    faces = drawn_people(int(person[-1]) + 1, decay)[person]
    for rows in np.array_split(np.arange(len(faces)), -(-len(faces) // 100_000)):
        noise = rng.normal(size=(len(rows), DIM)).astype(np.float32)
        faces[rows] += np.float32(np.sqrt((1 / PHOTOS_ALIKE - 1) / DIM)) * noise
        faces[rows] /= np.linalg.norm(faces[rows], axis=1, keepdims=True)
    return faces


def drawn_strata(count: int) -> list[tuple[str, str]]:
    rng = np.random.default_rng(SEED + 3)
    gender, age = rng.choice(3, size=count, p=(0.45, 0.45, 0.1)), rng.integers(0, 3, size=count)
    return [(("female", "male", "unsure")[g], f"age-{a}") for g, a in zip(gender, age, strict=True)]


# ---- how good it is -------------------------------------------------------------------------------------------


def bcubed(subject: NDArray[np.int64], person: NDArray[np.int64]) -> dict[str, float]:
    """BCubed precision, recall and F of faces (n,); subjects that hold several people, people that several hold."""
    pair, count = pairs(subject, person)
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


def pairs(
    subject: NDArray[np.int64], person: NDArray[np.int64]
) -> tuple[tuple[NDArray[np.int64], ...], NDArray[np.int64]]:
    """Every (subject, person) that has faces, and how many."""
    people = int(person.max()) + 1
    pair, count = np.unique(subject * people + person, return_counts=True)
    return (pair // people, pair % people), count


def majority(subject: NDArray[np.int64], person: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whose faces most of a subject's (s,) are."""
    pair, count = pairs(subject, person)
    owner = np.zeros(int(subject.max()) + 1, np.int64)
    order = np.argsort(count, kind="stable")
    owner[pair[0][order]] = pair[1][order]
    return owner


# ---- the tables -----------------------------------------------------------------------------------------------


def sizes_table(sizes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown: a column for each size, and the ratio of the times of the largest to the smallest."""
    rows = [("", *(f"{size['faces']:,} faces" for size in sizes)), ("---", *["---:"] * len(sizes))]
    rows += [("people", *(f"{size['people']:,}" for size in sizes))]
    stages = list(sizes[0]["seconds"])
    rows += [
        (f"{stage}, s (CPU s)", *("{:.1f} ({:.1f})".format(*size["seconds"][stage]) for size in sizes))
        for stage in stages
    ]
    rows += [("peak RSS, MiB", *(f"{size['peak_rss_mib']:.0f}" for size in sizes))]
    for name, form in (
        *((score, ".4f") for score in ("precision", "recall", "f")),
        *((number, ",") for number in ("merged", "split", "classes", "left", "largest")),
        ("real", ".4f"),
    ):
        if name in sizes[0]:
            rows += [(NAMES.get(name, name), *(format(size[name], form) for size in sizes))]
    lines = [f"| {' | '.join(row)} |" for row in rows] + [""]
    if len(sizes) > 1:
        small, large = sizes[0], sizes[-1]
        wall, cores = timed(large) / timed(small)
        more = large["faces"] / small["faces"]
        lines += [f"{more:.1f}x the faces take {wall:.1f}x the time, {cores:.1f}x the CPU time", ""]
    return lines


def timed(size: Mapping[str, Any]) -> NDArray[np.float64]:
    """Seconds (2,) on the wall and of all cores."""
    return np.sum(list(size["seconds"].values()), axis=0)


NAMES = {
    "precision": "BCubed precision",
    "recall": "BCubed recall",
    "f": "BCubed F",
    "merged": "subjects of several people",
    "split": "people in several subjects",
    "left": "left over",
    "largest": "largest class",
    "real": "classes of k real people",
}


def loss_line(found: Mapping[str, Any]) -> str:
    losses, seconds = found["losses"], found["seconds"]
    return (
        f"{found['people']:,} people: information loss {losses['microaggregate']:.4f} in "
        f"{seconds['microaggregate'][0]:.1f} s, MDAV {losses['mdav']:.4f} in {seconds['mdav'][0]:.1f} s: "
        f"{losses['microaggregate'] / losses['mdav'] - 1:+.1%}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
