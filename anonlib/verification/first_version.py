"""Releases of schema version 1: their tables, and the conditions on their class table.

A row of it pairs the surrogate that a class wears with the one that was made of the class, so it leads from a released
face to the average of its own class (a re-identification of 12 % of people where the faces alone give .2 %). Such
releases are still verified, and the reader is told. No release is written like this any more.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from anonlib.errors import VerificationError
from anonlib.verification.conditions import DIGEST, ClaimedFace, ClassPartition, no_epsilon, short
from anonlib.workspace.schemas import MANIFEST, SIMILARITY

TELLS_MORE = (
    "that it keeps its people: this release was made before schema version 2, and its tables tell more than they "
    "should. classes.parquet leads from a released face to the average of its own class, and the manifest's figures "
    "depend on the original faces; make the release again"
)


_FACE = pa.struct(
    [
        ("box", pa.list_(pa.float32())),
        ("score", pa.float32()),
        ("method", pa.string()),
        ("method_version", pa.string()),
        ("k", pa.int32()),
        ("epsilon", pa.float32()),
        ("surrogate_digest", pa.string()),
        ("mask_coverage", pa.float32()),
        ("similarity", pa.list_(SIMILARITY)),
        ("detected_again", pa.bool_()),
        ("fallback", pa.string()),
        ("reason", pa.string()),
    ]
)

MANIFEST_1 = pa.schema([pa.field("faces", pa.list_(_FACE)) if field.name == "faces" else field for field in MANIFEST])

CLASSES_1 = pa.schema(
    [
        ("class", pa.string()),
        ("people", pa.list_(pa.string())),
        ("weights", pa.list_(pa.float64())),
        ("k", pa.int32()),
        ("effective_k", pa.int32()),
        ("made", pa.string()),
        ("wears", pa.string()),
    ]
)


@dataclass(frozen=True)
class FirstClassRow:
    """A class: its people, and each one's weight in their `average`, 0 for a guest who only hides here.

    `average` is the digest of the surrogate that was made of the class, `surrogate` that of the one that was assigned
    to it; None where there is no other class.
    """

    name: str
    people: tuple[str, ...]
    weights: tuple[float, ...]
    k: int
    effective_k: int
    average: str
    surrogate: str | None


class FirstClassTable:
    """The class table. `add` every row, then `close`; raises VerificationError at the first that breaks a condition.

    `own_average`: whether the method assigns each class its own average (k-same), or never does (k-diff).
    """

    def __init__(self, k: int, *, own_average: bool) -> None:
        self.k, self.own_average = k, own_average
        self.rows = 0
        self._partition = ClassPartition(k)
        self._averages: set[str] = set()
        self._assigned: dict[str, int] = {}
        self._sizes: set[int] = set()
        self._unassigned: str | None = None

    @property
    def people(self) -> int:
        return len(self._partition)

    def add(self, row: FirstClassRow) -> None:
        """One more class."""
        self._partition.add(row.name, row.people, row.k, row.effective_k)
        self._check_surrogate(row)
        self.rows += 1
        self._sizes.add(row.k)
        self._averages.add(row.average)
        if row.surrogate is None:
            self._unassigned = row.name
        else:
            self._assigned[row.surrogate] = row.k

    def close(self) -> None:
        """What only the whole table can show: that whatever is worn was made of one of its classes."""
        if self._unassigned is not None and self.rows > 1:
            raise VerificationError(
                f"class {self._unassigned} has no surrogate to wear, though there are other classes"
            )
        for digest in self._assigned:
            if digest not in self._averages:
                raise VerificationError(
                    f"the surrogate {digest[:16]} is worn, but no class of the table is averaged into it"
                )

    def check_assigned(self, face: ClaimedFace) -> None:
        """See ClaimTable; the manifest's k must be that of the class that wears the face's surrogate."""
        size = self._assigned.get(face.digest or "")
        if size is None:
            raise VerificationError(f"a face wears the surrogate {short(face.digest)}, which no class was dealt")
        if face.k != size:
            raise VerificationError(
                f"a face counts {face.k} people behind the surrogate {short(face.digest)}, its class does not"
            )
        no_epsilon(face)

    def check_next_surrogate(self, face: ClaimedFace) -> None:
        """See ClaimTable."""
        if face.digest not in self._averages:
            raise VerificationError(
                f"a face wears the surrogate {short(face.digest)}, which was made of no class of the table"
            )
        if face.k not in self._sizes:
            raise VerificationError(f"a face counts {face.k} people in its class, and no class has so many")
        no_epsilon(face)

    def _check_surrogate(self, row: FirstClassRow) -> None:
        averaged = [weight for weight in row.weights if weight != 0.0]
        if len(row.weights) != len(row.people) or len(averaged) < self.k:
            raise VerificationError(
                f"the surrogate of class {row.name} is made of {len(averaged)} people, not of at least k"
            )
        if any(weight != 1 / len(averaged) for weight in averaged):
            raise VerificationError(f"the weights in the surrogate of class {row.name} are not uniform")
        if not all(DIGEST.fullmatch(digest) for digest in (row.average, row.surrogate) if digest is not None):
            raise VerificationError(f"class {row.name} names a surrogate by something that is no digest")
        if row.average in self._averages:
            raise VerificationError(f"two classes, {row.name} and one before it, are said to have one average")
        if row.surrogate in self._assigned:
            raise VerificationError(f"two classes, {row.name} and one before it, were dealt one surrogate")
        if self.own_average and row.surrogate != row.average:
            raise VerificationError(f"class {row.name} does not wear its own average, as k-same has it")
        if not self.own_average and row.surrogate == row.average:
            raise VerificationError(f"class {row.name} wears its own average, which k-diff rules out")
