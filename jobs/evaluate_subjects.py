"""How well people are found without their names: `python jobs/evaluate_subjects.py WORKSPACE`.

Clusters the faces of a scanned workspace as if no dataset had labelled them, background faces among them, and holds the
result against the labels: BCubed, pairs merged and split, how many people are still in several persons once those that
may be one are tied, and the share of equivalence classes that hide as many people as their effective k says. Only
labelled faces count. The labelled people are drawn in two halves: thresholds are
compared on the first, and the shipped one is reported on the second. On lfw-dev that second half is no clean test:
the form of the bar (how it rises with a cluster and with the crowd) was chosen with all of its people in view. Writes
subjects.json into the workspace, since it reads personal data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
import typer

from anonlib.errors import JobError
from anonlib.privacy.classes import form_classes
from anonlib.privacy.clustering import by_label, cluster, known_subjects
from anonlib.privacy.fusion import fused
from anonlib.privacy.keys import Keyring
from anonlib.privacy.knn import Numbers, Vectors
from anonlib.privacy.strata import stratum_of
from anonlib.privacy.surrogate_choice import shuffled
from anonlib.privacy.ties import tied
from anonlib.stages.people import same_fused
from anonlib.storage import Storage, open_storage
from anonlib.terminal import guarded, print_rows
from anonlib.training.evaluate.participants import scan_faces
from anonlib.workspace.layout import json_bytes
from anonlib.workspace.tables import column, halves, matrix

WRITTEN = "subjects.json"
STEPS = (-0.015, -0.01, -0.005, 0.0, 0.005, 0.01, 0.015)  # of the threshold, around the shipped one
SEED = 0
KEYS = Keyring(bytes(32), "")  # any key will do: what is measured is an average over people
HALVES = (("the other half", "report"), ("everyone", "all"))

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Scanned:
    """A workspace's faces: unit `embeddings` (n, d), `truth` (n,) of labels or -1, `female` and `age` (n,)."""

    embeddings: Vectors
    truth: Numbers
    female: np.ndarray[Any, np.dtype[np.float64]]
    age: np.ndarray[Any, np.dtype[np.float64]]


@app.command()
def evaluate(
    workspace: Annotated[str, typer.Argument(help="Folder or S3 URI of a scanned job's workspace.")],
    k: Annotated[int, typer.Option(help="Subjects in an equivalence class.", min=2)] = 5,
    scan: Annotated[str | None, typer.Option(help="Which scan, where the workspace has several.")] = None,
) -> None:
    """Cluster without labels, compare with the labels, and write subjects.json."""
    with guarded():
        storage = open_storage(workspace)
        scanned = read(storage, scan)
        document = measured(scanned, k)
        storage.publish(WRITTEN, json_bytes(document))
        show(document)
        print_rows([("written", f"{workspace.rstrip('/')}/{WRITTEN}")])


def read(storage: Storage, scan: str | None) -> Scanned:
    """The faces of a workspace's one scan, or of the one named."""
    faces = scan_faces(storage, scan, ("embedding", "second", "label", "female", "age"))
    labels = faces.column("label").to_pylist()
    known = np.array([label is not None for label in labels], bool)
    if not known.any():
        raise JobError("no face of this scan has a label; a truth is needed to compare with")
    truth = np.full(len(labels), -1, np.int64)
    truth[known] = by_label([label for label in labels if label is not None])[0]
    both = fused(matrix(faces, "embedding"), halves(faces, "second"))
    return Scanned(both, truth, column(faces, "female"), column(faces, "age"))


def measured(scanned: Scanned, k: int) -> dict[str, Any]:
    """`calibration` by threshold on half of the people; at the shipped one `report` on the others, and more."""
    truth = scanned.truth
    people = np.random.default_rng(SEED).permutation(int(truth.max()) + 1)
    first = np.isin(truth, people[: len(people) // 2])
    second = (truth >= 0) & ~first
    shipped = same_fused(len(truth))
    calibration = []
    subject = np.zeros(0, np.int64)
    for step in STEPS:
        found = cluster(scanned.embeddings, threshold=shipped + step)
        calibration.append({"threshold": shipped + step, **said(bcubed(truth[first], found[first]))})
        if step == 0.0:
            subject = found
    return {
        "faces": len(truth),
        "labelled": int(np.count_nonzero(truth >= 0)),
        "threshold": shipped,
        "calibration": calibration,
        "report": said(bcubed(truth[second], subject[second])),
        "all": said(bcubed(truth[truth >= 0], subject[truth >= 0])),
        **persons_of(scanned, subject, shipped, k),
    }


def persons_of(scanned: Scanned, subject: Numbers, threshold: float, k: int) -> dict[str, Any]:
    """`split`: people in several subjects, and in several persons; `classes` of persons against the true names."""
    bank = known_subjects(scanned.embeddings, subject, int(subject.max(initial=-1)) + 1)
    gender = (np.bincount(subject, scanned.female) / bank.faces).astype(np.float32)
    person = tied(bank.means, bank.faces, np.zeros(len(bank), bool), gender, threshold=threshold)[subject]
    known = scanned.truth >= 0
    persons, number = np.unique(person[known], return_inverse=True)
    photos = np.bincount(number)
    female, age = (np.bincount(number, values[known]) / photos for values in (scanned.female, scanned.age))
    strata = [stratum_of(*one) for one in zip(female.tolist(), age.tolist(), strict=True)]
    classes, _ = form_classes(photos, strata, shuffled([str(one) for one in persons], KEYS), k=k)
    members = [one.members for one in classes]
    real = real_classes(members, [one.effective_k for one in classes], number, scanned.truth[known], k)
    split = {
        name: in_several(of[known], scanned.truth[known]) for name, of in (("subjects", subject), ("persons", person))
    }
    return {"split": split, "classes": said(real)}


def in_several(of_face: Numbers, truth: Numbers) -> int:
    """How many people have faces in more than one subject or person."""
    pairs = np.unique(np.stack([truth, of_face], axis=1), axis=0)
    return int((np.bincount(pairs[:, 0]) > 1).sum())


def said(found: Clustering | RealClasses) -> dict[str, Any]:
    """As JSON, with what is derived."""
    return asdict(found) | ({"f": found.f} if isinstance(found, Clustering) else {"share": found.share})


def show(document: dict[str, Any]) -> None:
    """The table."""
    print(f"{document['labelled']:,} labelled faces among {document['faces']:,}; clustered without their labels\n")
    print(f"{'':<26}{'people':>8}{'found':>8}{'precision':>11}{'recall':>8}{'F':>8}{'merged':>9}{'split':>8}")
    rows = [(f"one half, at {one['threshold']:.4f}", one) for one in document["calibration"]]
    rows += [(f"{name}, at {document['threshold']:.4f}", document[key]) for name, key in HALVES]
    for name, one in rows:
        rates = f"{one['precision']:>11.4f}{one['recall']:>8.4f}{one['f']:>8.4f}"
        print(f"{name:<26}{one['people']:>8,}{one['clusters']:>8,}{rates}{one['merged']:>9,}{one['split']:>8,}")
    classes = document["classes"]
    told = f"{classes['effective_real']:,} of {classes['classes']:,} ({classes['share']:.1%}); "
    split = document["split"]
    print()
    print_rows(
        [
            ("split people", f"{split['subjects']:,} are in several subjects, {split['persons']:,} in several persons"),
            ("effective k is real in", told + f"k people or more in {classes['k_real']:,}"),
        ]
    )


# ---- clusters against the truth ---------------------------------------------------------------------------------
# BCubed (Bagga and Baldwin 1998) asks for each face which share of its cluster is the same person (precision) and which
# share of that person is in its cluster (recall), and takes the mean over faces; of the measures compared by Amigo et
# al. 2009 it is the one that satisfies all their constraints. A split person counts twice in an equivalence class,
# which effective k is there to catch, while two merged people share a template that is neither's.


@dataclass(frozen=True)
class Clustering:
    """Means over `faces`; pairs of faces `merged`, two people in one cluster, and `split`, one person in two."""

    faces: int
    people: int
    clusters: int
    precision: float
    recall: float
    merged: int
    split: int

    @property
    def f(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.precision * self.recall / (self.precision + self.recall)


def bcubed(truth: Numbers, cluster: Numbers) -> Clustering:
    """Clusters (n,) against the people (n,) that they should be; at least one face."""
    if len(truth) != len(cluster) or len(truth) == 0:
        raise ValueError(f"{len(truth)} names and {len(cluster)} clusters cannot be compared; give one of each a face")
    _, person, photos = np.unique(truth, return_inverse=True, return_counts=True)
    _, group, members = np.unique(cluster, return_inverse=True, return_counts=True)
    _, cell, shared = np.unique(person * len(members) + group, return_inverse=True, return_counts=True)
    together = _pairs(shared)
    return Clustering(
        len(truth),
        len(photos),
        len(members),
        float(np.mean(shared[cell] / members[group])),
        float(np.mean(shared[cell] / photos[person])),
        _pairs(members) - together,
        _pairs(photos) - together,
    )


@dataclass(frozen=True)
class RealClasses:
    """Of `classes`, how many hide at least as many people as their effective k says, and how many at least k."""

    classes: int
    effective_real: int
    k_real: int

    @property
    def share(self) -> float:
        """The share of classes whose effective k is real; NaN of none."""
        return self.effective_real / self.classes if self.classes else float("nan")


def real_classes(
    members: Sequence[Sequence[int]], effective: Sequence[int], subject: Numbers, truth: Numbers, k: int
) -> RealClasses:
    """Counts the true people of each class. `members`: subject numbers; `subject` (n,) and `truth` (n,) of named faces.

    A subject stands for whoever most of its faces show, the lower number in a tie. A class with a subject nobody can
    name is left out.
    """
    stands_for = _majority(subject, truth)
    classes = effective_real = k_real = 0
    for group, claimed in zip(members, effective, strict=True):
        names = [stands_for.get(int(member)) for member in group]
        if None in names:
            continue
        people = len(set(names))
        classes += 1
        effective_real += people >= claimed
        k_real += people >= k
    return RealClasses(classes, effective_real, k_real)


def _majority(subject: Numbers, truth: Numbers) -> dict[int, int]:
    pairs, count = np.unique(np.stack([subject, truth], axis=1), axis=0, return_counts=True)
    order = np.lexsort((-pairs[:, 1], count, pairs[:, 0]))
    return {int(subject): int(truth) for subject, truth in pairs[order]}


def _pairs(sizes: Numbers) -> int:
    return int((sizes * (sizes - 1) // 2).sum())


if __name__ == "__main__":
    app()
