"""How well people are found without their names: `python jobs/evaluate_subjects.py WORKSPACE`.

Clusters the faces of a scanned workspace as if no dataset had labelled them, background faces among them, and holds the
result against the labels: BCubed, pairs merged and split, how many people are still in several persons once those that
may be one are tied, and the share of equivalence classes that hide as many people as their effective k says. Only
labelled faces count. The labelled people are drawn in two halves: thresholds are compared on the first, and the shipped
one is reported on the second. On lfw-dev that second half is no clean test: the form of the bar was chosen with all of
its people in view. Writes subjects.json into the workspace, since it reads personal data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer

from anonlib.errors import JobError
from anonlib.privacy.classes import form_classes, shuffled, stratum_of
from anonlib.privacy.clustering import by_label, cluster, fused, known_subjects, tied
from anonlib.privacy.keys import Keyring
from anonlib.privacy.knn import Numbers
from anonlib.stages.people import same_fused
from anonlib.storage import Storage, open_storage
from anonlib.terminal import guarded, print_rows
from anonlib.workspace.layout import json_bytes, scans_of
from anonlib.workspace.tables import column, halves, matrix

WRITTEN = "subjects.json"
COLUMNS = ("embedding", "second", "label", "female", "age")
STEPS = (-0.015, -0.01, -0.005, 0.0, 0.005, 0.01, 0.015)  # of the threshold, around the shipped one
SEED = 0
KEYS = Keyring(bytes(32), "")  # any key will do: what is measured is an average over people

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def evaluate(
    workspace: Annotated[str, typer.Argument(help="Folder or S3 URI of a scanned job's workspace.")],
    k: Annotated[int, typer.Option(help="Subjects in an equivalence class.", min=2)] = 5,
    scan: Annotated[str | None, typer.Option(help="Which scan, where the workspace has several.")] = None,
) -> None:
    """Cluster without labels, compare with the labels, and write subjects.json."""
    with guarded():
        storage = open_storage(workspace)
        document = measured(scan_faces(storage, scan), k)
        storage.publish(WRITTEN, json_bytes(document))
        show(document)
        print_rows([("written", f"{workspace.rstrip('/')}/{WRITTEN}")])


def scan_faces(workspace: Storage, scan: str | None) -> pa.Table:
    """COLUMNS of the workspace's one scan, or of the one named; raises JobError if there is no such scan."""
    scans = {name: store for name, store in scans_of(workspace).items() if scan in (None, name) and store.done()}
    if not scans:
        raise JobError("there is no scan in this workspace; run `anonlib scan` or a job first")
    if len(scans) > 1:
        raise JobError(f"this workspace has several scans; name one by --scan: {', '.join(scans)}")
    return pa.concat_tables([store.faces(shard, COLUMNS) for store in scans.values() for shard in sorted(store.done())])


def measured(faces: pa.Table, k: int) -> dict[str, Any]:
    """`calibration` by threshold on half of the people; at the shipped one `report` on the others, and more."""
    labels = faces.column("label").to_pylist()
    known = np.array([label is not None for label in labels], bool)
    if not known.any():
        raise JobError("no face of this scan has a label; a truth is needed to compare with")
    truth = np.full(len(labels), -1, np.int64)
    truth[known] = by_label([label for label in labels if label is not None])[0]
    embeddings = fused(matrix(faces, "embedding"), halves(faces, "second"))
    people = np.random.default_rng(SEED).permutation(int(truth.max()) + 1)
    first = np.isin(truth, people[: len(people) // 2])
    shipped = same_fused(len(truth))
    subjects = {step: cluster(embeddings, threshold=shipped + step) for step in STEPS}
    subject = subjects[0.0]
    bank = known_subjects(embeddings, subject, int(subject.max(initial=-1)) + 1)
    female, age = column(faces, "female"), column(faces, "age")
    gender = (np.bincount(subject, female) / bank.faces).astype(np.float32)
    person = tied(bank, np.zeros(len(bank.faces), bool), gender, threshold=shipped)[subject]
    split = {name: in_several(of[known], truth[known]) for name, of in (("subjects", subject), ("persons", person))}
    calibration = [
        {"threshold": shipped + step, **bcubed(truth[first], found[first])} for step, found in subjects.items()
    ]
    persons, number = np.unique(person[known], return_inverse=True)
    photos = np.bincount(number)
    looks = np.stack([np.bincount(number, values[known]) / photos for values in (female, age)], axis=1).tolist()
    strata, names = [stratum_of(*look) for look in looks], [str(name) for name in persons]
    classes, _ = form_classes(photos, strata, shuffled(names, KEYS), k=k)
    members, effective = [group.members for group in classes], [group.effective_k for group in classes]
    return {
        "faces": len(truth),
        "labelled": int(np.count_nonzero(known)),
        "threshold": shipped,
        "calibration": calibration,
        "report": bcubed(truth[known & ~first], subject[known & ~first]),
        "all": bcubed(truth[known], subject[known]),
        "split": split,
        "classes": real_classes(members, effective, number, truth[known], k),
    }


def show(document: dict[str, Any]) -> None:
    """The table."""
    print(f"{document['labelled']:,} labelled faces among {document['faces']:,}; clustered without their labels\n")
    print(f"{'':<26}{'people':>8}{'found':>8}{'precision':>11}{'recall':>8}{'F':>8}{'merged':>9}{'split':>8}")
    rows = [(f"one half, at {row['threshold']:.4f}", row) for row in document["calibration"]]
    names = {"the other half": "report", "everyone": "all"}
    rows += [(f"{name}, at {document['threshold']:.4f}", document[key]) for name, key in names.items()]
    for name, row in rows:
        rates = f"{row['precision']:>11.4f}{row['recall']:>8.4f}{row['f']:>8.4f}"
        print(f"{name:<26}{row['people']:>8,}{row['clusters']:>8,}{rates}{row['merged']:>9,}{row['split']:>8,}")
    classes, split = document["classes"], document["split"]
    real = f"{classes['effective_real']:,} of {classes['classes']:,} ({classes['share']:.1%})"
    people = f"{split['subjects']:,} are in several subjects, {split['persons']:,} in several persons"
    print()
    print_rows(
        [("split people", people), ("effective k is real in", f"{real}; k people or more in {classes['k_real']:,}")]
    )


# ---- clusters against the truth ---------------------------------------------------------------------------------


def bcubed(truth: Numbers, cluster: Numbers) -> dict[str, Any]:
    """Clusters (n,) against the people (n,) that they should be; n > 0.

    BCubed (Bagga and Baldwin 1998) asks for each face which share of its cluster is the same person (`precision`) and
    which share of that person is in its cluster (`recall`). Of pairs of faces, `merged` are two people in one cluster,
    and `split` one person in two.
    """
    if len(truth) != len(cluster) or len(truth) == 0:
        raise ValueError(f"{len(truth)} names and {len(cluster)} clusters cannot be compared; give one of each a face")
    _, person, photos = np.unique(truth, return_inverse=True, return_counts=True)
    _, group, members = np.unique(cluster, return_inverse=True, return_counts=True)
    _, cell, shared = np.unique(person * len(members) + group, return_inverse=True, return_counts=True)
    together, of_clusters, of_people = (int((sizes * (sizes - 1) // 2).sum()) for sizes in (shared, members, photos))
    precision, recall = float(np.mean(shared[cell] / members[group])), float(np.mean(shared[cell] / photos[person]))
    return {
        "faces": len(truth),
        "people": len(photos),
        "clusters": len(members),
        "precision": precision,
        "recall": recall,
        "f": 2 * precision * recall / (precision + recall),
        "merged": of_clusters - together,
        "split": of_people - together,
    }


def in_several(of_face: Numbers, truth: Numbers) -> int:
    """How many people have faces in more than one subject or person."""
    pairs = np.unique(np.stack([truth, of_face], axis=1), axis=0)
    return int((np.bincount(pairs[:, 0]) > 1).sum())


def real_classes(
    members: Sequence[Sequence[int]], effective: Sequence[int], subject: Numbers, truth: Numbers, k: int
) -> dict[str, Any]:
    """Of `classes`, how many hide at least as many people as their effective k says, and how many at least k.

    `members`: subject numbers; `subject` (n,) and `truth` (n,) of named faces. A subject stands for whoever most of its
    faces show, the lower number in a tie. A class with a subject nobody can name is left out; `share` of none is NaN.
    """
    pairs, count = np.unique(np.stack([subject, truth], axis=1), axis=0, return_counts=True)
    stands_for = dict(pairs[np.lexsort((-pairs[:, 1], count, pairs[:, 0]))].tolist())
    hidden = [
        ({stands_for.get(int(member)) for member in group}, claim)
        for group, claim in zip(members, effective, strict=True)
    ]
    named = [(len(people), claim) for people, claim in hidden if None not in people]
    effective_real = sum(people >= claim for people, claim in named)
    return {
        "classes": len(named),
        "effective_real": effective_real,
        "k_real": sum(people >= k for people, _ in named),
        "share": effective_real / len(named) if named else float("nan"),
    }


if __name__ == "__main__":
    app()
