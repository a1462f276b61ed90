"""The conditions under which a method's claim holds, checked row by row on what a release shows.

For class methods (Newton, Sweeney and Malin 2005; Gross et al. 2006): classes partition the persons, each has at least
k and an effective k of at least k, and wears one surrogate, which is made of at least k persons. For vector methods:
each draw is one person's, at the epsilon of the claim. And every face of the release wears what these rows say. The
maker of a release runs the same checks before signing as a stranger runs afterwards.

Two tables that cannot be joined hold what class methods rest on: classes (persons, and the digest they wear), and
surrogates (digests, and of how many persons each was made). Which class a surrogate was made of stands in neither: it
would lead from a released face to the average of its own class. Persons and classes are pseudonyms made for this table
alone, in the order of their names, so neither the names nor the order say who or how alike anybody is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np

from anonlib.config import CLASS_METHODS, CROP_METHODS, VECTOR_METHODS, MethodConfig
from anonlib.errors import VerificationError
from anonlib.privacy.claims import claim_of
from anonlib.verification.certificate import CertifiedCounts
from anonlib.workspace.schemas import SOLID

_PSEUDONYM = re.compile("[0-9a-f]{24}")
DIGEST = re.compile("[0-9a-f]{64}")

Standing = Literal["replaced", "next_surrogate", "solid"]


@dataclass(frozen=True)
class ClassRow:
    """A class: its persons, how many they are, how many a face hides among, and the digest that all of them wear."""

    name: str
    people: tuple[str, ...]
    k: int
    effective_k: int
    wears: str


@dataclass(frozen=True)
class SurrogateRow:
    """A surrogate that is worn, and of how many persons it was made."""

    digest: str
    donors: int


@dataclass(frozen=True)
class DrawRow:
    """What one person was dealt; `epsilon` as the claim counts it, None where nothing is claimed."""

    digest: str
    epsilon: float | None


@dataclass(frozen=True)
class ClaimedFace:
    """What a manifest says of one face, as far as the claim goes."""

    method: str
    k: int | None
    epsilon: float | None
    digest: str | None
    fallback: str | None


class ClaimTable(Protocol):
    """What the faces of a release may wear; both raise VerificationError."""

    def check_dealt(self, face: ClaimedFace) -> None:
        """The face wears what its people were dealt."""

    def check_tried(self, face: ClaimedFace) -> None:
        """The face wears something else of this release, since what was dealt still matched it."""


class ClassPartition:
    """The persons of a class table; `add` raises VerificationError unless they are a partition into classes of k."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._known: set[str] = set()
        self._last = ""

    def __len__(self) -> int:
        return len(self._known)

    def add(self, name: str, people: Sequence[str], k: int, effective_k: int) -> None:
        """The persons of one more class."""
        if name == self._last:
            raise VerificationError(f"class {name} is in the table twice, so it has two surrogates")
        if not all(_PSEUDONYM.fullmatch(one) for one in (name, *people)):
            raise VerificationError(f"class {name[:24]!r} or one of its people has a name that is no pseudonym")
        if name < self._last or any(a > b for a, b in pairwise(people)):
            raise VerificationError(
                f"class {name} or its people are not in the order of their names, so order may speak"
            )
        if len(set(people)) != len(people):
            raise VerificationError(f"class {name} lists one person twice")
        for person in people:
            if person in self._known:
                raise VerificationError(f"person {person} is in two classes, {name} and one before it")
        if k != len(people):
            raise VerificationError(f"class {name} says that it has {k} people, and lists {len(people)}")
        if k < self._k:
            raise VerificationError(f"class {name} has {k} people, fewer than k = {self._k}")
        if not self._k <= effective_k <= k:
            raise VerificationError(f"class {name} has an effective k of {effective_k}, not between {self._k} and {k}")
        self._known.update(people)
        self._last = name


class ClassTable:
    """Both tables of a class method: `add` and `add_surrogate` every row, then `close`. Raises VerificationError."""

    def __init__(self, method: MethodConfig) -> None:
        self.method = method
        self.rows = 0
        self._partition = ClassPartition(method.k)
        self._worn: set[str] = set()
        self._made: set[str] = set()
        self._last = ""

    @property
    def people(self) -> int:
        return len(self._partition)

    def add(self, row: ClassRow) -> None:
        """One more class."""
        self._partition.add(row.name, row.people, row.k, row.effective_k)
        self.rows += 1
        self._worn.add(row.wears)

    def add_surrogate(self, row: SurrogateRow) -> None:
        """One more surrogate."""
        if not DIGEST.fullmatch(row.digest):
            raise VerificationError("a surrogate is named by something that is no digest")
        if row.digest <= self._last:
            raise VerificationError(
                f"the surrogate {short(row.digest)} is not in the order of digests, so order may speak"
            )
        if row.donors < self.method.k:
            raise VerificationError(
                f"the surrogate {short(row.digest)} is made of {row.donors} people, not of at least k"
            )
        self._made.add(row.digest)
        self._last = row.digest

    def close(self) -> None:
        """What only both tables can show: the surrogates are those that are worn."""
        for digest in sorted(self._worn ^ self._made):
            what = "worn, but in no row of surrogates" if digest in self._worn else "a surrogate that no class wears"
            raise VerificationError(f"{short(digest)} is {what}")

    def check_dealt(self, face: ClaimedFace) -> None:
        """See ClaimTable; every face counts k, so that the number tells nothing of its class."""
        if face.digest not in self._worn:
            raise VerificationError(f"a face wears the surrogate {short(face.digest)}, which no class was dealt")
        if face.k != self.method.k:
            raise VerificationError(
                f"a face of the surrogate {short(face.digest)} claims k = {face.k}, not {self.method.k}"
            )
        no_epsilon(face)

    def check_tried(self, face: ClaimedFace) -> None:
        """See ClaimTable."""
        raise VerificationError(
            "a face wears a surrogate that was chosen for it alone, which ends the k-anonymity of its class"
        )


class DrawTable:
    """The draw table, one row a person of a vector method or a donor of a crop method; `add` raises VerificationError.

    `chosen_again`: releases of schema version 1 could draw anew for a face that still matched.
    """

    def __init__(self, method: MethodConfig, chosen_again: bool = False) -> None:
        self.epsilon = claim_of(method).epsilon
        self._chosen_again = chosen_again
        self._dealt: set[str] = set()
        self._last = ""

    def add(self, row: DrawRow) -> None:
        """One more draw."""
        if not DIGEST.fullmatch(row.digest):
            raise VerificationError("a draw is named by something that is no digest")
        if row.digest == self._last:
            raise VerificationError(f"the draw {short(row.digest)} was dealt to two people")
        if row.digest < self._last:
            raise VerificationError(f"the draw {short(row.digest)} is not in the order of digests, so order may speak")
        if row.epsilon != self.epsilon:
            raise VerificationError(f"the draw {short(row.digest)} has epsilon {row.epsilon}, the claim {self.epsilon}")
        self._dealt.add(row.digest)
        self._last = row.digest

    def close(self) -> None:
        """Every row stands for itself."""

    def check_dealt(self, face: ClaimedFace) -> None:
        """See ClaimTable; epsilon is compared in the manifest's single precision."""
        if face.digest not in self._dealt:
            raise VerificationError(f"a face wears the surrogate {short(face.digest)}, which nobody was dealt")
        expected = None if self.epsilon is None else float(np.float32(self.epsilon))
        if face.epsilon != expected or face.k is not None:
            raise VerificationError(
                f"a face of the draw {short(face.digest)} claims epsilon {face.epsilon} and k {face.k}"
            )

    def check_tried(self, face: ClaimedFace) -> None:
        """See ClaimTable; a second draw depends on the face, so only methods without a claim may make one."""
        if self.epsilon is not None and not self._chosen_again:
            raise VerificationError(
                "a face wears an identity that was drawn for it alone, which ends the epsilon of its person"
            )
        if not DIGEST.fullmatch(face.digest or ""):
            raise VerificationError("a face wears a surrogate without a digest")
        if face.epsilon is not None or face.k is not None:
            raise VerificationError(f"a face that was dealt again claims epsilon {face.epsilon} and k {face.k}")


class NoTable:
    """A redaction: there is no surrogate to wear."""

    def close(self) -> None:
        """There are no rows."""

    def check_dealt(self, face: ClaimedFace) -> None:
        """See ClaimTable."""
        if (face.digest, face.k, face.epsilon) != (None, None, None):
            raise VerificationError("a redacted face claims a surrogate, k or epsilon")

    def check_tried(self, face: ClaimedFace) -> None:
        """See ClaimTable."""
        raise VerificationError("a redacted face says that it wears the next surrogate, and there is none")


class ReleaseCounter:
    """Counts a release's images and faces, and checks each face against what it may wear."""

    def __init__(self, method: MethodConfig, wardrobe: ClaimTable) -> None:
        self.method, self.wardrobe = method, wardrobe
        self._count: Counter[str] = Counter()

    @property
    def counts(self) -> CertifiedCounts:
        return CertifiedCounts(**self._count)

    def add_shard(self) -> None:
        """One more shard."""
        self._count["shards"] += 1

    def add_image(self, status: str, faces: Iterable[ClaimedFace]) -> None:
        """One more image; raises VerificationError for an unknown status or a face with a wrong surrogate."""
        if status not in ("released", "no_face", "quarantined"):
            raise VerificationError(f"an image has the status {status!r}, which is none")
        found = list(faces)
        if (status == "released" and not found) or (status == "no_face" and found):
            raise VerificationError(f"an image is {status} with {len(found)} faces")
        self._count.update(("images", status))
        for face in found:
            self._count.update(("faces", "withheld" if status == "quarantined" else self._standing(face)))

    def _standing(self, face: ClaimedFace) -> Standing:
        if face.method == "solid" and face.fallback in SOLID:
            NoTable().check_dealt(face)
            return "solid"
        if face.method != self.method.name:
            raise VerificationError(
                f"a face was replaced by {face.method}, and the method of this release is {self.method.name}"
            )
        if face.fallback is None:
            self.wardrobe.check_dealt(face)
            return "replaced"
        if face.fallback != "next-surrogate":
            raise VerificationError(f"a face has the fallback {face.fallback!r} without its method")
        self.wardrobe.check_tried(face)
        return "next_surrogate"


def claim_table_of(method: MethodConfig) -> ClassTable | DrawTable | NoTable:
    """The empty tables that a method fills."""
    if method.name in CLASS_METHODS:
        return ClassTable(method)
    return DrawTable(method) if method.name in VECTOR_METHODS | CROP_METHODS else NoTable()


def no_epsilon(face: ClaimedFace) -> None:
    """Raise VerificationError if a face of a class claims one."""
    if face.epsilon is not None:
        raise VerificationError(f"a face of a class claims epsilon {face.epsilon}")


def short(digest: str | None) -> str:
    """A digest as sentences name it."""
    return digest[:16] if digest else "of no digest"
