"""Who is who in a table of faces: labels where there are some, faces where there are none, and doubts about both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from anonlib.faces.track import Track
from anonlib.privacy.clustering import normalized
from anonlib.privacy.dp import Mechanism, identities
from anonlib.privacy.keys import Keyring
from anonlib.privacy.knn import EXACT_BELOW
from anonlib.stages.people import People, face_vectors, people_of, persons_of, seen_at_once
from anonlib.workspace.schemas import FACES
from anonlib.workspace.tables import of_rows

KEYRING = Keyring(b"a secret of 32 bytes for the tests", "r1")
FIRST = ("cluster", "s/5#0")


def photos(of: list[int], seed: int = 0) -> np.ndarray:
    """Unit embeddings (n, 128) of the people numbered in `of`: strangers .8 alike, photos of one person .97."""
    axis = np.zeros(128)
    axis[0] = 0.8**0.5
    centres = np.random.default_rng(3).normal(size=(50, 128)) * (0.17 / 128) ** 0.5
    noise = np.random.default_rng(seed).normal(size=(len(of), 128)) * (0.03 / 128) ** 0.5
    return normalized((axis + centres[of] + noise).astype(np.float32))


def formed(
    faces: pa.Table, exact_below: int = EXACT_BELOW, folder: Path = Path(), apart: Sequence[list[int]] = ()
) -> People:
    """The subjects of one shard's faces."""
    read = [faces.slice(0, 3), faces.slice(3)]
    vectors = face_vectors(lambda: iter(read), len(faces), folder, exact_below=exact_below)
    return people_of(faces, vectors, KEYRING, apart)


def people(of: list[int], labels: list[str | None], apart: Sequence[list[int]] = ()) -> People:
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(photos(of).ravel()), 128)
    columns = {
        "face_id": pa.array([f"s/{row}#0" for row in range(len(of))], pa.string()),
        "label": pa.array(labels, pa.string()),
        "embedding": embedding,
        "second": embedding,
        "female": pa.array([float(one % 2) for one in of], pa.float32()),
        "age": pa.array([20.0 + one for one in of], pa.float32()),
        "tone": pa.array([140.0 for _ in of], pa.float32()),
    }
    return formed(pa.table(columns), apart=apart)


def test_labelled_faces_are_their_label_and_the_others_whoever_they_look_like() -> None:
    found = people([0, 0, 1, 1, 0, 2, 2, 1], ["b", "b", "a", "a", None, None, None, None])
    assert found.of_face.tolist() == [1, 1, 0, 0, 1, 2, 2, 0]
    assert found.labels == ["a", "b", None]
    assert found.ids == [KEYRING.pseudonym("subject", *parts) for parts in (("label", "a"), ("label", "b"), FIRST)]
    assert found.age.tolist() == [21.0, 20.0, 22.0]
    assert np.allclose(np.linalg.norm(found.template, axis=1), 1)


def test_a_wrong_label_is_kept_and_said_and_a_person_without_one_is_named_after_the_first_face() -> None:
    found = people([0, 0, 0, 1, 1, 1, 1], ["a", "a", "a", "b", "b", "b", "a"])
    assert found.of_face[6] == found.of_face[0]
    assert found.doubts == ["s/6#0 is labelled a and looks like b"]
    unnamed = people([4, 5, 4], [None, None, None])
    assert unnamed.of_face.tolist() == [0, 1, 0] and unnamed.doubts == []
    assert unnamed.ids == [KEYRING.pseudonym("subject", "cluster", f"s/{row}#0") for row in (0, 1)]


def test_faces_that_are_seen_at_once_are_different_people_however_alike() -> None:
    still, clip = [[0, 0, 40, 40], [50, 0, 90, 40], [55, 5, 95, 45]], [0, 0, 40, 40]
    scores = {"clip#0": (0, [1, 1, 0, 0]), "clip#1": (3, [0, 1]), "clip#2": (1, [1, 1])}
    boxes = {"clip#0": clip, "clip#1": [50, 0, 90, 40], "clip#2": [80, 0, 120, 40]}
    rows = [{"face_id": f"s/still#{number}", "box": box} for number, box in enumerate(still)]
    for key, (first, found) in scores.items():
        track = Track.still(np.array(boxes[key], np.float32), len(found))
        track = replace(track, first=first, scores=np.array(found, np.float32))
        rows.append({"face_id": f"s/{key}", "box": boxes[key], "track": track.columns})
    # Two detections of one face in a still, and tracks of a clip that are found in one frame.
    assert seen_at_once(of_rows(rows, FACES)) == [[0, 1], [3, 5]]
    assert people([0, 0, 0, 1], [None] * 4, apart=[[0, 1]]).of_face.tolist() in ([0, 1, 0, 2], [0, 1, 1, 2])
    assert people([0, 0, 0, 1], ["a", None, None, "b"], apart=[[0, 1]]).of_face.tolist() == [0, 2, 2, 1]


def split(labels: list[str | None], second: float = 0.85) -> People:
    """Two parts of one person that clustering leaves apart (mean cosine .85), and two strangers.

    `second`: how alike the second recognizer takes the parts to be.
    """
    columns = {
        "face_id": pa.array([f"s/{row}#0" for row in range(6)], pa.string()),
        "label": pa.array(labels, pa.string()),
        "embedding": vectors(0.85),
        "second": vectors(second),
        "female": pa.array([0.9, 0.9, 0.45, 0.45, 0.9, 0.1], pa.float32()),
        "age": pa.array([30.0, 30.0, 40.0, 40.0, 30.0, 30.0], pa.float32()),
        "tone": pa.array([90.0, 90.0, 130.0, 130.0, 130.0, 130.0], pa.float32()),
    }
    return formed(pa.table(columns))


def vectors(alike: float) -> pa.FixedSizeListArray:
    """Unit vectors (6, 128) of two photos, two more `alike` to them, and two strangers."""
    axes = np.eye(4, 128)
    angle = np.arccos(alike) / 2
    parts = [np.cos(angle) * axes[0] + sign * np.sin(angle) * axes[1] for sign in (1, 1, -1, -1)]
    return pa.FixedSizeListArray.from_arrays(pa.array(np.array([*parts, axes[2], axes[3]], np.float32).ravel()), 128)


def test_the_second_recognizer_has_a_say_in_who_is_who() -> None:
    assert split([None] * 6, second=1.0).of_face.tolist() == [0, 0, 0, 0, 1, 2]
    assert split([None] * 6, second=0.0).person.tolist() == [0, 1, 2, 3]


def test_subjects_that_may_be_one_person_are_one_person_with_one_stratum() -> None:
    found = split([None] * 6)
    assert found.of_face.tolist() == [0, 0, 1, 1, 2, 3]
    persons = persons_of(found, np.array([True, True, True, False, False, True]))
    assert persons.of_face.tolist() == [0, 0, 0, 0, 1, 2]
    assert persons.strata == [("female", "age-1", "tone-0"), ("female", "age-0", "tone-1"), ("male", "age-0", "tone-1")]
    assert persons.photos.tolist() == [3, 0, 1]
    assert persons.sure.tolist() == [False, True, True]
    assert np.allclose(persons.template[0], np.eye(1, 128)[0], atol=1e-6)
    by_ledger = persons_of(found, np.ones(6, bool), ["x", "y", "x"])
    assert by_ledger.of_face.tolist() == [0, 0, 0, 0, 1, 0] and by_ledger.photos.tolist() == [5, 1]


def test_tied_subjects_share_one_draw() -> None:
    """m draws of one person would cost m times epsilon."""
    found = split([None] * 6)
    persons = persons_of(found, np.ones(6, bool))
    drawn = identities(Mechanism("uniform"), persons.template, persons.ids, KEYRING)
    assert len({drawn[person].tobytes() for person in persons.of_face[:4]}) == 1
    assert len({drawn[person].tobytes() for person in persons.of_face}) == 3
