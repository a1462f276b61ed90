"""The conditions under which a method's claim holds, checked row by row on what a release shows.

For class methods (Newton, Sweeney and Malin 2005; Gross et al. 2006): classes partition the persons, each has at least
k persons and an effective k of at least k, and is assigned one surrogate, which is made of at least k persons. For
vector methods: each draw is one person's, at the epsilon of the claim. And every face of the release carries what these
rows assign. The maker of a release runs the same checks before signing as a stranger runs afterwards.

Two tables that cannot be joined hold what class methods rest on: classes (persons, and the digest of their surrogate),
and surrogates (digests, and of how many persons each was made). Neither says of which class a surrogate was made: it
would lead from a released face to the average of its own class. Persons and classes are pseudonyms made for this table
alone, in the order of their names, so neither names nor order say who a person is or how alike two are.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from anonlib.errors import VerificationError
from anonlib.verification.certificate import K_ANONYMITY, METRIC_PRIVACY, NONE, CertifiedCounts, Claim
from anonlib.workspace.schemas import CLASSES_TABLE, DRAWS_TABLE, SOLID, SURROGATES_TABLE

DIGEST = re.compile("[0-9a-f]{64}")
_PSEUDONYM = re.compile("[0-9a-f]{24}")


class ClaimParameters(Protocol):
    """What a claim depends on: a method's name and the numbers that its guarantee is a function of."""

    @property
    def name(self) -> str: ...
    @property
    def k(self) -> int: ...
    @property
    def epsilon(self) -> float | None: ...
    @property
    def kappa(self) -> float | None: ...


def _anonymity(method: ClaimParameters) -> Claim:
    return Claim(K_ANONYMITY, k=method.k)


def _metric(epsilon: float, metric: str, pure: float) -> Claim:
    return Claim(METRIC_PRIVACY, epsilon=epsilon, metric=metric, pure_epsilon=pure)


# The same figures as privacy.dp.epsilon_of, which a test holds; a verifier loads no mechanism.
_PROVED: dict[str, Callable[[ClaimParameters], Claim]] = {
    "k-diff": _anonymity,
    "k-same": _anonymity,
    "dp-laplace": lambda method: _metric(method.epsilon or 0.0, "release", method.epsilon or 0.0),
    "dp-vmf": lambda method: _metric(method.kappa or 0.0, "Euclidean distance", 2 * (method.kappa or 0.0)),
    "dp-purkayastha": lambda method: _metric(method.epsilon or 0.0, "radian", math.pi * (method.epsilon or 0.0)),
    "dp-uniform": lambda method: _metric(0.0, "release", 0.0),
}
"""The methods that prove something, and what (Chatzikokolakis et al. 2013 for metric privacy). Others claim nothing."""


def claim_of(method: ClaimParameters) -> Claim:
    """The most that a method may claim, which certificate, manifest and report repeat, and no more than that.

    A claim is about the identity channel of the faces that the method replaced: hair, clothes, background, the kept
    gender and age, and whatever is outside the mask are outside every claim.
    """
    prove = _PROVED.get(method.name)
    return Claim(NONE) if prove is None else prove(method)


@dataclass(frozen=True)
class ClassRow:
    """A class: its persons, how many they are, how many a face hides among, and the digest of their surrogate."""

    name: str
    people: tuple[str, ...]
    k: int
    effective_k: int
    surrogate: str


@dataclass(frozen=True)
class SurrogateRow:
    """A surrogate that is assigned to a class, and of how many persons it was made."""

    digest: str
    donors: int


@dataclass(frozen=True)
class DrawRow:
    """The draw assigned to one person; `epsilon` as the claim counts it, None where nothing is claimed."""

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

    @staticmethod
    def of(row: Mapping[str, Any]) -> ClaimedFace:
        """Of a MANIFEST_FACE."""
        return ClaimedFace(row["method"], row["k"], row["epsilon"], row["surrogate_digest"], row["fallback"])


class ClaimTable(Protocol):
    """What the faces of a release may carry; each method raises VerificationError."""

    @property
    def people(self) -> int: ...
    @property
    def rows(self) -> int: ...

    def close(self) -> None:
        """Check what only the whole table shows; call after the last row."""

    def check_assigned(self, face: ClaimedFace) -> None:
        """The face carries what was assigned to its person."""

    def check_next_surrogate(self, face: ClaimedFace) -> None:
        """The face carries another surrogate of this release, since the assigned one still matched it."""


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
        if not all(_PSEUDONYM.fullmatch(pseudonym) for pseudonym in (name, *people)):
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

    def __init__(self, k: int) -> None:
        self.k = k
        self.rows = 0
        self._partition = ClassPartition(k)
        self._assigned: set[str] = set()
        self._surrogates: set[str] = set()
        self._last = ""

    @property
    def people(self) -> int:
        return len(self._partition)

    def add(self, row: ClassRow) -> None:
        """One more class."""
        self._partition.add(row.name, row.people, row.k, row.effective_k)
        self.rows += 1
        self._assigned.add(row.surrogate)

    def add_surrogate(self, row: SurrogateRow) -> None:
        """One more surrogate."""
        if not DIGEST.fullmatch(row.digest):
            raise VerificationError("a surrogate is named by something that is no digest")
        if row.digest <= self._last:
            raise VerificationError(
                f"the surrogate {short(row.digest)} is not in the order of digests, so order may speak"
            )
        if row.donors < self.k:
            raise VerificationError(
                f"the surrogate {short(row.digest)} is made of {row.donors} people, not of at least k"
            )
        self._surrogates.add(row.digest)
        self._last = row.digest

    def close(self) -> None:
        """The surrogates are those that are assigned."""
        for digest in sorted(self._assigned ^ self._surrogates):
            what = (
                "worn, but in no row of surrogates" if digest in self._assigned else "a surrogate that no class wears"
            )
            raise VerificationError(f"{short(digest)} is {what}")

    def check_assigned(self, face: ClaimedFace) -> None:
        """See ClaimTable; every face counts k, so that the number tells nothing of its class."""
        if face.digest not in self._assigned:
            raise VerificationError(f"a face wears the surrogate {short(face.digest)}, which no class was dealt")
        if face.k != self.k:
            raise VerificationError(f"a face of the surrogate {short(face.digest)} claims k = {face.k}, not {self.k}")
        no_epsilon(face)

    def check_next_surrogate(self, face: ClaimedFace) -> None:
        """See ClaimTable."""
        raise VerificationError(
            "a face wears a surrogate that was chosen for it alone, which ends the k-anonymity of its class"
        )


class DrawTable:
    """The draw table, one row a person of a vector method or a donor of a crop method; `add` raises VerificationError.

    `redraws`: releases of schema version 1 could draw anew for a face that still matched.
    """

    people = rows = 0

    def __init__(self, epsilon: float | None, *, redraws: bool = False) -> None:
        self.epsilon = epsilon
        self._redraws = redraws
        self._assigned: set[str] = set()
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
        self._assigned.add(row.digest)
        self._last = row.digest

    def close(self) -> None:
        """Each row was checked alone."""

    def check_assigned(self, face: ClaimedFace) -> None:
        """See ClaimTable; epsilon is compared in the manifest's single precision."""
        if face.digest not in self._assigned:
            raise VerificationError(f"a face wears the surrogate {short(face.digest)}, which nobody was dealt")
        expected = None if self.epsilon is None else float(np.float32(self.epsilon))
        if face.epsilon != expected or face.k is not None:
            raise VerificationError(
                f"a face of the draw {short(face.digest)} claims epsilon {face.epsilon} and k {face.k}"
            )

    def check_next_surrogate(self, face: ClaimedFace) -> None:
        """See ClaimTable; a second draw depends on the face, so only methods without a claim may make one."""
        if self.epsilon is not None and not self._redraws:
            raise VerificationError(
                "a face wears an identity that was drawn for it alone, which ends the epsilon of its person"
            )
        if not DIGEST.fullmatch(face.digest or ""):
            raise VerificationError("a face wears a surrogate without a digest")
        if face.epsilon is not None or face.k is not None:
            raise VerificationError(f"a face that was dealt again claims epsilon {face.epsilon} and k {face.k}")


class NoTable:
    """A redaction: no face carries a surrogate."""

    people = rows = 0

    def close(self) -> None:
        """There are no rows."""

    def check_assigned(self, face: ClaimedFace) -> None:
        """See ClaimTable."""
        if (face.digest, face.k, face.epsilon) != (None, None, None):
            raise VerificationError("a redacted face claims a surrogate, k or epsilon")

    def check_next_surrogate(self, face: ClaimedFace) -> None:
        """See ClaimTable."""
        raise VerificationError("a redacted face says that it wears the next surrogate, and there is none")


class ReleaseCounter:
    """Counts a release's images and faces, and checks each face against the table of the method."""

    def __init__(self, method: str, table: ClaimTable) -> None:
        self.method, self.table = method, table
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
        faces = list(faces)
        if (status == "released" and not faces) or (status == "no_face" and faces):
            raise VerificationError(f"an image is {status} with {len(faces)} faces")
        self._count.update(("images", status))
        for face in faces:
            self._count.update(("faces", "withheld" if status == "quarantined" else self._standing(face)))

    def _standing(self, face: ClaimedFace) -> str:
        """Where CertifiedCounts counts the face."""
        if face.method == "solid" and face.fallback in SOLID:
            NoTable().check_assigned(face)
            return "solid"
        if face.method != self.method:
            raise VerificationError(
                f"a face was replaced by {face.method}, and the method of this release is {self.method}"
            )
        if face.fallback is None:
            self.table.check_assigned(face)
            return "replaced"
        if face.fallback != "next-surrogate":
            raise VerificationError(f"a face has the fallback {face.fallback!r} without its method")
        self.table.check_next_surrogate(face)
        return "next_surrogate"


def tables_of(claim: Claim, *, surrogates: bool) -> tuple[str, ...]:
    """The tables of the release that a claim rests on; `surrogates`: whether faces carry one or are redacted."""
    if claim.k is not None:
        return CLASSES_TABLE, SURROGATES_TABLE
    return (DRAWS_TABLE,) if surrogates else ()


def claim_table(claim: Claim, paths: Sequence[str]) -> ClassTable | DrawTable | NoTable:
    """The empty table of a claim that rests on the tables at these `paths`."""
    if claim.k is not None:
        return ClassTable(claim.k)
    return DrawTable(claim.epsilon) if paths else NoTable()


def no_epsilon(face: ClaimedFace) -> None:
    """Raise VerificationError if a face of a class claims one."""
    if face.epsilon is not None:
        raise VerificationError(f"a face of a class claims epsilon {face.epsilon}")


def short(digest: str | None) -> str:
    """A digest as sentences name it."""
    return digest[:16] if digest else "of no digest"
