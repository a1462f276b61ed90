"""The disagreements of labels and faces in the dataset's own names, as sentences for whoever knows the photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anonlib.privacy.clustering import by_label
from anonlib.privacy.knn import Vectors
from anonlib.privacy.label_conflicts import Disagreements, disagreements

_FACES_SAID = 5


@dataclass(frozen=True)
class LabelWarnings:
    """What was found among labelled faces; `names[label]` and `face_ids[face]` of the numbers in `found`."""

    found: Disagreements
    names: tuple[str, ...]
    face_ids: tuple[str, ...]

    def sentences(self) -> list[str]:
        """One a finding. They name people: for the terminal and the workspace, never for the release."""
        said = [
            f"{self.face_ids[one.face]} is labelled {self.names[one.label]} and looks like {self.names[one.like]}"
            for one in self.found.misplaced
        ]
        said += [
            f"{self.names[one.first]} and {self.names[one.second]} look like one person"
            for one in self.found.one_person
        ]
        for two in self.found.two_people:
            faces = ", ".join(self.face_ids[face] for face in two.faces[:_FACES_SAID])
            more = f" and {len(two.faces) - _FACES_SAID} more" if len(two.faces) > _FACES_SAID else ""
            said.append(f"{self.names[two.label]} looks like two people, one of them in {faces}{more}")
        return said


def check_labels(
    embeddings: Vectors, labels: Sequence[str], face_ids: Sequence[str], *, near: float, apart: float
) -> LabelWarnings:
    """The check of labelled faces: unit embeddings (n, d), and a label and an id each."""
    label, names = by_label(labels)
    return LabelWarnings(disagreements(embeddings, label, near=near, apart=apart), tuple(names), tuple(face_ids))
