"""The conditions under which a method's claim holds, checked row by row on what a release shows.

For class methods (Newton, Sweeney and Malin 2005; Gross et al. 2006): classes partition the people, each has at least
k and an effective k of at least k, wears one surrogate, and is averaged into one with weights that are all the same.
For vector methods: each draw is one person's, at the epsilon of the claim. And every face of the release wears what
these rows say. The maker of a release runs the same checks before signing as a stranger runs afterwards.

People and classes are pseudonyms made for this table alone, in the order of their names, so neither the names nor the
order say who or how alike anybody is. What a class tries after its dealt surrogate is not in the table: it would draw
a map of which classes look alike, and faces that wear one are outside the claim.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from anonlib.config import CLASS_METHODS, CROP_METHODS, VECTOR_METHODS, MethodConfig
from anonlib.privacy.certificate import Counts, Untrue
from anonlib.privacy.claims import claim_of

_PSEUDONYM = re.compile("[0-9a-f]{24}")
_DIGEST = re.compile("[0-9a-f]{64}")

Standing = Literal["replaced", "next_surrogate", "solid"]


@dataclass(frozen=True)
class ClassRow:
    """A class: its people, and each one's weight in the surrogate `made` of them, 0 for a guest who only hides here.

    `wears` is the digest that the class was dealt; None where there is no other class to wear.
    """

    name: str
    people: tuple[str, ...]
    weights: tuple[float, ...]
    k: int
    effective_k: int
    made: str
    wears: str | None


@dataclass(frozen=True)
class DrawRow:
    """What one person was dealt; `epsilon` as the claim counts it, None where nothing is claimed."""

    digest: str
    epsilon: float | None


@dataclass(frozen=True)
class Face:
    """What a manifest says of one face, as far as the claim goes."""

    method: str
    k: int | None
    epsilon: float | None
    digest: str | None
    fallback: str | None


class Wardrobe(Protocol):
    """What the faces of a release may wear; both raise Untrue."""

    def check_dealt(self, face: Face) -> None:
        """The face wears what its people were dealt."""

    def check_tried(self, face: Face) -> None:
        """The face wears something else of this release, since what was dealt still matched it."""


class Classes:
    """The class table. `add` every row, then `close`; raises Untrue at the first that breaks a condition."""

    def __init__(self, method: MethodConfig) -> None:
        self.method = method
        self.rows = 0
        self._people: set[str] = set()
        self._made: set[str] = set()
        self._worn: dict[str, int] = {}
        self._sizes: set[int] = set()
        self._bare: str | None = None
        self._last = ""

    @property
    def people(self) -> int:
        return len(self._people)

    def add(self, row: ClassRow) -> None:
        """One more class."""
        self._check_names(row)
        self._check_crowd(row)
        self._check_surrogate(row)
        self.rows += 1
        self._last = row.name
        self._people.update(row.people)
        self._sizes.add(row.k)
        self._made.add(row.made)
        if row.wears is None:
            self._bare = row.name
        else:
            self._worn[row.wears] = row.k

    def close(self) -> None:
        """What only the whole table can show: that whatever is worn was made of one of its classes."""
        if self._bare is not None and self.rows > 1:
            raise Untrue(f"class {self._bare} has no surrogate to wear, though there are other classes")
        for digest in self._worn:
            if digest not in self._made:
                raise Untrue(f"the surrogate {digest[:16]} is worn, but no class of the table is averaged into it")

    def check_dealt(self, face: Face) -> None:
        """See Wardrobe; the manifest's k must be that of the class that wears the face's surrogate."""
        size = self._worn.get(face.digest or "")
        if size is None:
            raise Untrue(f"a face wears the surrogate {_short(face.digest)}, which no class was dealt")
        if face.k != size:
            raise Untrue(
                f"a face counts {face.k} people behind the surrogate {_short(face.digest)}, its class does not"
            )
        _no_epsilon(face)

    def check_tried(self, face: Face) -> None:
        """See Wardrobe."""
        if face.digest not in self._made:
            raise Untrue(f"a face wears the surrogate {_short(face.digest)}, which was made of no class of the table")
        if face.k not in self._sizes:
            raise Untrue(f"a face counts {face.k} people in its class, and no class has so many")
        _no_epsilon(face)

    def _check_names(self, row: ClassRow) -> None:
        if row.name == self._last:
            raise Untrue(f"class {row.name} is in the table twice, so it has two surrogates")
        if not all(_PSEUDONYM.fullmatch(name) for name in (row.name, *row.people)):
            raise Untrue(f"class {row.name[:24]!r} or one of its people has a name that is no pseudonym")
        if row.name < self._last or any(a > b for a, b in zip(row.people, row.people[1:], strict=False)):
            raise Untrue(f"class {row.name} or its people are not in the order of their names, so order may speak")
        if len(set(row.people)) != len(row.people):
            raise Untrue(f"class {row.name} lists one person twice")
        for person in row.people:
            if person in self._people:
                raise Untrue(f"person {person} is in two classes, {row.name} and one before it")

    def _check_crowd(self, row: ClassRow) -> None:
        k = self.method.k
        if row.k != len(row.people):
            raise Untrue(f"class {row.name} says that it has {row.k} people, and lists {len(row.people)}")
        if row.k < k:
            raise Untrue(f"class {row.name} has {row.k} people, fewer than k = {k}")
        if not k <= row.effective_k <= row.k:
            raise Untrue(f"class {row.name} has an effective k of {row.effective_k}, not between {k} and {row.k}")

    def _check_surrogate(self, row: ClassRow) -> None:
        averaged = [weight for weight in row.weights if weight != 0.0]
        if len(row.weights) != len(row.people) or len(averaged) < self.method.k:
            raise Untrue(f"the surrogate of class {row.name} is made of {len(averaged)} people, not of at least k")
        if any(weight != 1 / len(averaged) for weight in averaged):
            raise Untrue(f"the weights in the surrogate of class {row.name} are not uniform")
        if not all(_DIGEST.fullmatch(digest) for digest in (row.made, row.wears) if digest is not None):
            raise Untrue(f"class {row.name} names a surrogate by something that is no digest")
        if row.made in self._made:
            raise Untrue(f"two classes, {row.name} and one before it, are said to have one average")
        if row.wears in self._worn:
            raise Untrue(f"two classes, {row.name} and one before it, were dealt one surrogate")
        if self.method.name == "k-same" and row.wears != row.made:
            raise Untrue(f"class {row.name} does not wear its own average, as k-same has it")
        if self.method.name == "k-diff" and row.wears == row.made:
            raise Untrue(f"class {row.name} wears its own average, which k-diff rules out")


class Draws:
    """The draw table, one row a person of a vector method or a donor of a crop method; `add` raises Untrue."""

    def __init__(self, method: MethodConfig) -> None:
        self._epsilon = claim_of(method).epsilon
        self._dealt: set[str] = set()
        self._last = ""

    def add(self, row: DrawRow) -> None:
        """One more draw."""
        if not _DIGEST.fullmatch(row.digest):
            raise Untrue("a draw is named by something that is no digest")
        if row.digest == self._last:
            raise Untrue(f"the draw {_short(row.digest)} was dealt to two people")
        if row.digest < self._last:
            raise Untrue(f"the draw {_short(row.digest)} is not in the order of digests, so order may speak")
        if row.epsilon != self._epsilon:
            raise Untrue(f"the draw {_short(row.digest)} has epsilon {row.epsilon}, the claim {self._epsilon}")
        self._dealt.add(row.digest)
        self._last = row.digest

    def close(self) -> None:
        """Every row stands for itself."""

    def check_dealt(self, face: Face) -> None:
        """See Wardrobe; epsilon is compared in the manifest's single precision."""
        if face.digest not in self._dealt:
            raise Untrue(f"a face wears the surrogate {_short(face.digest)}, which nobody was dealt")
        expected = None if self._epsilon is None else float(np.float32(self._epsilon))
        if face.epsilon != expected or face.k is not None:
            raise Untrue(f"a face of the draw {_short(face.digest)} claims epsilon {face.epsilon} and k {face.k}")

    def check_tried(self, face: Face) -> None:
        """See Wardrobe; a second draw depends on the face, so it has no row and no epsilon."""
        if not _DIGEST.fullmatch(face.digest or ""):
            raise Untrue("a face wears a surrogate without a digest")
        if face.epsilon is not None or face.k is not None:
            raise Untrue(f"a face that was dealt again claims epsilon {face.epsilon} and k {face.k}")


class Nothing:
    """A redaction: there is no surrogate to wear."""

    def check_dealt(self, face: Face) -> None:
        """See Wardrobe."""
        if (face.digest, face.k, face.epsilon) != (None, None, None):
            raise Untrue("a redacted face claims a surrogate, k or epsilon")

    def check_tried(self, face: Face) -> None:
        """See Wardrobe."""
        raise Untrue("a redacted face says that it wears the next surrogate, and there is none")


class Tally:
    """Counts a release's images and faces, and checks each face against what it may wear."""

    def __init__(self, method: MethodConfig, wardrobe: Wardrobe) -> None:
        self.method, self.wardrobe = method, wardrobe
        self._count: Counter[str] = Counter()

    @property
    def counts(self) -> Counts:
        return Counts(**self._count)

    def add_shard(self) -> None:
        """One more shard."""
        self._count["shards"] += 1

    def add_image(self, status: str, faces: Iterable[Face]) -> None:
        """One more image; raises Untrue for a status that is none, or a face that does not wear what it should."""
        if status not in ("released", "no_face", "quarantined"):
            raise Untrue(f"an image has the status {status!r}, which is none")
        found = list(faces)
        if (status == "released" and not found) or (status == "no_face" and found):
            raise Untrue(f"an image is {status} with {len(found)} faces")
        self._count.update(("images", status))
        for face in found:
            self._count.update(("faces", "withheld" if status == "quarantined" else self._standing(face)))

    def _standing(self, face: Face) -> Standing:
        if face.method == "solid" and face.fallback == "solid":
            Nothing().check_dealt(face)
            return "solid"
        if face.method != self.method.name:
            raise Untrue(f"a face was replaced by {face.method}, and the method of this release is {self.method.name}")
        if face.fallback is None:
            self.wardrobe.check_dealt(face)
            return "replaced"
        if face.fallback != "next-surrogate":
            raise Untrue(f"a face has the fallback {face.fallback!r} without its method")
        self.wardrobe.check_tried(face)
        return "next_surrogate"


def wardrobe_of(method: MethodConfig) -> Classes | Draws | Nothing:
    """The empty table that a method fills."""
    if method.name in CLASS_METHODS:
        return Classes(method)
    return Draws(method) if method.name in VECTOR_METHODS | CROP_METHODS else Nothing()


def _no_epsilon(face: Face) -> None:
    if face.epsilon is not None:
        raise Untrue(f"a face of a class claims epsilon {face.epsilon}")


def _short(digest: str | None) -> str:
    return digest[:16] if digest else "of no digest"
