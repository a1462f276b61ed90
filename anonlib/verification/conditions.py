"""The conditions under which a method's claim holds, checked row by row before a release is signed and by who reads it.

Class methods (Newton, Sweeney and Malin 2005; Gross et al. 2006): classes partition the persons, each has at least k
persons and an effective k of at least k, and wears one surrogate, which is made of at least k persons or is a face of
the gallery that ships with anonlib. Vector methods:
each draw is one person's, at the epsilon of the claim. Every face of the release carries what these rows assign.
Persons and classes have pseudonyms made for these tables alone, in the order of the pseudonyms.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from anonlib.errors import VerificationError, require
from anonlib.verification.certificate import K_ANONYMITY, METRIC_PRIVACY, NONE, CertifiedCounts, Claim
from anonlib.workspace.schemas import (
    CLASSES_TABLE,
    CLIP,
    DRAWS_TABLE,
    FILLS,
    IGNORED,
    KEPT,
    LOT,
    NO_FACE,
    OF_CLIP,
    QUARANTINED,
    RELEASED,
    SPARED,
    STILL,
    SURROGATES_TABLE,
)

if TYPE_CHECKING:
    from anonlib.verification.parsing import ReleasedMethod

Row = Mapping[str, Any]
_OF_CLIP = tuple(name for name, _ in OF_CLIP)
_RATE = re.compile(r"[1-9]\d{0,8}/[1-9]\d{0,8}")
_DIGEST, _PSEUDONYM = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{24}")


def _metric(epsilon: float | None, metric: str, factor: float = 1.0) -> Claim:
    return Claim(METRIC_PRIVACY, epsilon=epsilon or 0.0, metric=metric, pure_epsilon=factor * (epsilon or 0.0))


# The same figures as privacy.dp.epsilon_of, which a test holds; a verifier loads no mechanism.
_PROVED: dict[str, Callable[[ReleasedMethod], Claim]] = {
    "k-diff": lambda method: Claim(K_ANONYMITY, k=method.k),
    "k-same": lambda method: Claim(K_ANONYMITY, k=method.k),
    "dp-laplace": lambda method: _metric(method.epsilon, "release"),
    "dp-vmf": lambda method: _metric(method.kappa, "Euclidean distance", 2.0),
    "dp-purkayastha": lambda method: _metric(method.epsilon, "radian", math.pi),
    "dp-subset": lambda method: _metric(method.epsilon, "release"),
    "dp-uniform": lambda method: _metric(0.0, "release"),
}
"""The methods that prove something, and what (Chatzikokolakis et al. 2013 for metric privacy). Others claim nothing."""


def claim_of(method: ReleasedMethod) -> Claim:
    """The most that a method may claim, about the identity channel of the faces that it replaced and nothing else."""
    prove = _PROVED.get(method.name)
    return prove(method) if prove else Claim(NONE)


@cache
def gallery_digests() -> tuple[str, ...]:
    """Of each face of the shipped gallery, in its order, the sha256 (hex) of its picture and shape."""
    data = resources.files("anonlib.synthesis").joinpath("shipped/gallery.npz").read_bytes()
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        joined, ends = file["pictures"].tobytes(), np.cumsum(file["sizes"]).tolist()
        shapes = file["shapes"].astype("<f4")
    starts = [0, *ends[:-1]]
    return tuple(
        hashlib.sha256(joined[start:end] + shape.tobytes()).hexdigest()
        for start, end, shape in zip(starts, ends, shapes, strict=True)
    )


class ClaimTable:
    """What the faces of a release may carry: `add` every row, `close`, then check faces. Each raises VerificationError.

    Rows are those of the release's tables, faces those of its manifests. This one is of a redaction: it has no rows.
    """

    people = rows = 0
    _last = ""

    def add(self, row: Row) -> None:
        """One more row of any of the tables."""

    def close(self) -> None:
        """Check what only the whole table shows."""

    def check_assigned(self, face: Row) -> None:
        """The face carries what was assigned to its person."""
        claimed = face["surrogate_digest"], face["k"], face["epsilon"]
        require(claimed == (None, None, None), "a redacted face claims a surrogate, k or epsilon")

    def check_lot(self, face: Row) -> None:
        """The face carries a face of the gallery that was dealt to its person alone."""
        raise VerificationError("a face says that it was dealt by lot, and this method deals none")

    def check_next_surrogate(self, face: Row) -> None:
        """The face carries another surrogate of this release, since the assigned one still matched it."""
        raise VerificationError("a redacted face says that it wears the next surrogate, and there is none")

    def _check_digest(self, digest: str, what: str) -> None:
        require(_is_digest(digest), f"a {what} is named by something that is no digest")
        require(digest != self._last, f"the {what} {_short(digest)} is there twice")
        require(digest > self._last, f"the {what} {_short(digest)} is not in its order, so order may speak")
        self._last = digest


class ClassTable(ClaimTable):
    """Classes and surrogates of a class method, never joined: a worn face would lead to its class's average."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.people = self.rows = 0
        self._last_class = ""
        self._known, self._surrogates, self._gallery = set[str](), set[str](), set[str]()
        self._assigned: dict[str, int] = {}

    def add(self, row: Row) -> None:
        if "class" in row:
            self._add_class(row)
            self._assigned[row["wears"]] = self.k
            return
        digest, donors, gallery = row["digest"], row["donors"], row.get("gallery")
        self._check_digest(digest, "surrogate")
        if gallery is None:
            require(donors >= self.k, f"the surrogate {_short(digest)} is made of {donors} people, not of at least k")
        else:
            shipped = gallery in gallery_digests()
            require(shipped, f"the surrogate {_short(digest)} is no face of the gallery that this anonlib has")
            self._gallery.add(digest)
        self._surrogates.add(digest)

    def _add_class(self, row: Row) -> None:
        name, people, k, effective_k = row["class"], row["people"], row["k"], row["effective_k"]
        what = f"class {name[:24]!r}"
        require(name != self._last_class, f"{what} is in the table twice, so it has two surrogates")
        named = all(_PSEUDONYM.fullmatch(pseudonym) for pseudonym in (name, *people))
        require(named, f"{what} or one of its people has a name that is no pseudonym")
        ordered = name > self._last_class and not any(a > b for a, b in pairwise(people))
        require(ordered, f"{what} or its people are not in the order of their names, so order may speak")
        require(len(set(people)) == len(people), f"{what} lists one person twice")
        require(self._known.isdisjoint(people), f"a person of {what} is in two classes")
        require(k == len(people), f"{what} says that it has {k} people, and lists {len(people)}")
        require(k >= self.k, f"{what} has {k} people, fewer than k = {self.k}")
        between = self.k <= effective_k <= k
        require(between, f"{what} has an effective k of {effective_k}, not of {self.k} to {k}")
        self._known.update(people)
        self._last_class = name
        self.rows += 1
        self.people += k

    def close(self) -> None:
        for digest in sorted(self._assigned.keys() - self._surrogates):
            raise VerificationError(f"{_short(digest)} is worn, but in no row of surrogates")
        for digest in sorted(self._surrogates - self._gallery - self._assigned.keys()):
            raise VerificationError(f"{_short(digest)} is a surrogate that no class wears")

    def check_assigned(self, face: Row) -> None:
        """The same k for every face, so that the number tells nothing of its class."""
        digest = face["surrogate_digest"]
        require(digest in self._assigned, f"a face wears the surrogate {_short(digest)}, which no class was dealt")
        self._check_k(face, [self._assigned[digest]])

    def check_lot(self, face: Row) -> None:
        digest = face["surrogate_digest"]
        require(digest in self._gallery, f"a face was dealt {_short(digest)} by lot, which is no face of the gallery")
        require(face["k"] is None and face["epsilon"] is None, "a face that was dealt by lot claims k or epsilon")

    def check_next_surrogate(self, face: Row) -> None:
        raise VerificationError(
            "a face wears a surrogate that was chosen for it alone, which ends the k-anonymity of its class"
        )

    def _check_k(self, face: Row, sizes: Iterable[int]) -> None:
        claims = f"a face of the surrogate {_short(face['surrogate_digest'])} claims"
        require(face["k"] in sizes, f"{claims} k = {face['k']}, which its class does not have")
        require(face["epsilon"] is None, f"{claims} epsilon {face['epsilon']}")


class FirstClassTable(ClassTable):
    """The class table of schema version 1; `own_average`: a class wears its own average (k-same), or never (k-diff)."""

    def __init__(self, k: int, *, own_average: bool) -> None:
        super().__init__(k)
        self.own_average = own_average
        self._unassigned: str | None = None

    def add(self, row: Row) -> None:
        self._add_class(row)
        name, average, worn = row["class"], row["made"], row["wears"]
        averaged = [weight for weight in row["weights"] if weight != 0.0]
        enough = len(row["weights"]) == len(row["people"]) and len(averaged) >= self.k
        require(enough, f"the surrogate of class {name} is made of {len(averaged)} people, not of at least k")
        uniform = all(weight == 1 / len(averaged) for weight in averaged)
        require(uniform, f"the weights in the surrogate of class {name} are not uniform")
        digests = all(_is_digest(digest) for digest in (average, worn) if digest is not None)
        require(digests, f"class {name} names a surrogate by something that is no digest")
        require(average not in self._surrogates, f"class {name} and one before it are said to have one average")
        require(worn not in self._assigned, f"class {name} and one before it were dealt one surrogate")
        rule = "wears its own average, as k-same has it" if self.own_average else "wears no average of its own"
        require((worn == average) == self.own_average, f"it does not hold that class {name} {rule}")
        self._surrogates.add(average)
        if worn is None:
            self._unassigned = name
        else:
            self._assigned[worn] = row["k"]

    def close(self) -> None:
        alone = self._unassigned is None or self.rows == 1
        require(alone, f"class {self._unassigned} has no surrogate to wear, though there are other classes")
        for digest in self._assigned.keys() - self._surrogates:
            raise VerificationError(f"the surrogate {_short(digest)} is worn, and averaged from no class of the table")

    def check_next_surrogate(self, face: Row) -> None:
        """Any average of the table, with the size of any of its classes."""
        digest = face["surrogate_digest"]
        made = digest in self._surrogates
        require(made, f"a face wears the surrogate {_short(digest)}, which was made of no class of the table")
        self._check_k(face, self._assigned.values())


class DrawTable(ClaimTable):
    """The draws, a row a person or a donor; `redraws`: version 1 could draw anew for a face that still matched."""

    def __init__(self, epsilon: float | None, *, redraws: bool = False) -> None:
        self.epsilon, self._redraws = epsilon, redraws
        self._assigned: set[str] = set()

    def add(self, row: Row) -> None:
        digest, epsilon = row["digest"], row["epsilon"]
        self._check_digest(digest, "draw")
        require(epsilon == self.epsilon, f"the draw {_short(digest)} has epsilon {epsilon}, the claim {self.epsilon}")
        self._assigned.add(digest)

    def check_assigned(self, face: Row) -> None:
        """Epsilon is compared in the manifest's single precision."""
        digest, epsilon, k = face["surrogate_digest"], face["epsilon"], face["k"]
        require(digest in self._assigned, f"a face wears the surrogate {_short(digest)}, which nobody was dealt")
        expected = None if self.epsilon is None else float(np.float32(self.epsilon))
        as_claimed = (epsilon, k) == (expected, None)
        require(as_claimed, f"a face of the draw {_short(digest)} claims epsilon {epsilon} and k {k}")

    def check_next_surrogate(self, face: Row) -> None:
        """A second draw depends on the face, so only methods without a claim may make one."""
        free = self.epsilon is None or self._redraws
        require(free, "a face wears an identity that was drawn for it alone, which ends the epsilon of its person")
        require(_is_digest(face["surrogate_digest"] or ""), "a face wears a surrogate without a digest")
        epsilon, k = face["epsilon"], face["k"]
        require(epsilon is None and k is None, f"a face that was dealt again claims epsilon {epsilon} and k {k}")


class ReleaseCounter:
    """Counts a release's images and faces, and checks each face against the table of the method.

    `hide`: the redaction of each other kind that the job hides; `hidden` counts those regions, which are no faces.
    """

    def __init__(self, method: str, table: ClaimTable, hide: Mapping[str, str] | None = None) -> None:
        self.method, self.table, self.hide = method, table, hide or {}
        self.hidden: Counter[str] = Counter()
        self._count: Counter[str] = Counter()

    @property
    def counts(self) -> CertifiedCounts:
        return CertifiedCounts(**self._count)

    def add_shard(self) -> None:
        """One more shard."""
        self._count["shards"] += 1

    def add_image(self, status: str, faces: Sequence[Row]) -> None:
        """One more image; raises VerificationError for an unknown status or a face with a wrong surrogate."""
        require(status in (RELEASED, NO_FACE, QUARANTINED), f"an image has the status {status!r}, which is none")
        fits = status == QUARANTINED or (status == RELEASED) == bool(faces)
        require(fits, f"an image is {status} with {len(faces)} faces")
        self._count.update(("images", status))
        for face in faces:
            kind = face.get("kind")
            if kind is None:
                self._count.update(("faces", "withheld" if status == QUARANTINED else self._standing(face)))
                continue
            # What was found again is flat, and a photo that a reviewer let out is hidden by the job's fallback.
            as_said = kind in self.hide and face["method"] in (self.hide[kind], *FILLS)
            as_said &= face["fallback"] in (None, "review")
            require(as_said, f"a {kind} is hidden by {face['method']}, which the release does not say")
            ClaimTable().check_assigned(face)
            self.hidden[kind] += status != QUARANTINED

    def add_media(self, row: Row) -> None:
        """Whether an image is a still or a clip; raises VerificationError where it is neither, or a clip's faces are
        not in its frames. `row` of MANIFEST; earlier ones know stills alone."""
        media, frames = row.get("media") or STILL, row.get("frames")
        require(media in (STILL, CLIP), f"an image is a {media!r}, which is no medium")
        if media == STILL:
            none = [row.get(name) for name in ("rate", "frames", "seconds")]
            none += [face.get(name) for face in row["faces"] or () for name in _OF_CLIP]
            require(all(value is None for value in none), "a still has frames")
            return
        self._count["clips"] += 1
        if row["status"] == QUARANTINED:
            return
        if not frames or frames < 0:
            raise VerificationError(f"a clip has {frames} frames")
        timed = _RATE.fullmatch(row["rate"] or "") is not None and (row["seconds"] or 0) > 0
        require(timed, f"a clip has the rate {row['rate']} and {row['seconds']} seconds")
        self._count["frames"] += frames
        for face in row["faces"]:
            first, last, hidden, boxes = (face[name] for name in _OF_CLIP)
            require(None not in (first, last, hidden, boxes), "a clip's face does not say in which frames it is")
            inside = 0 <= first <= last < frames and 0 <= hidden <= last - first + 1
            require(inside, f"a face is in the frames {first} to {last} of a clip of {frames}")
            starts = range(0, len(boxes), 4)
            places = (boxes[start : start + 4] for start in starts)
            shaped = len(boxes) == 4 * (last - first + 1) and list(face["box"]) in places
            require(shaped, f"a face of {last - first + 1} frames has {len(starts)} boxes, or another box than these")

    def _standing(self, face: Row) -> str:
        """Where CertifiedCounts counts the face."""
        method, fallback = face["method"], face["fallback"]
        if method in FILLS and fallback in (method, "review"):
            ClaimTable().check_assigned(face)
            return "solid"
        consent, spared = face.get("consent"), (method, fallback) == (KEPT, SPARED)
        by_consent = _PSEUDONYM.fullmatch(consent or "") if spared else consent is None
        require(bool(by_consent), "a face is spared by no consent, or has one and is not spared")
        if spared or (method, fallback) == (KEPT, IGNORED):
            ClaimTable().check_assigned(face)
            return str(fallback)
        own = method == self.method
        require(own, f"a face was replaced by {method}, and the method of this release is {self.method}")
        if fallback is None:
            self.table.check_assigned(face)
            return "replaced"
        if fallback == LOT:
            self.table.check_lot(face)
            return "by_lot"
        require(fallback == "next-surrogate", f"a face has the fallback {fallback!r} without its method")
        self.table.check_next_surrogate(face)
        return "next_surrogate"


def tables_of(claim: Claim, *, surrogates: bool) -> tuple[str, ...]:
    """The tables of the release that a claim rests on; `surrogates`: whether faces carry one or are redacted."""
    if claim.k is not None:
        return CLASSES_TABLE, SURROGATES_TABLE
    return (DRAWS_TABLE,) if surrogates else ()


def claim_table(claim: Claim, paths: Sequence[str], *, first_version_of: str | None = None) -> ClaimTable:
    """The empty table of a claim; `first_version_of`: the method of a release of schema version 1."""
    if claim.k is not None and first_version_of is not None:
        return FirstClassTable(claim.k, own_average=first_version_of == "k-same")
    if claim.k is not None:
        return ClassTable(claim.k)
    return DrawTable(claim.epsilon, redraws=first_version_of is not None) if paths else ClaimTable()


def _is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def _short(digest: str | None) -> str:
    return digest[:16] if digest else "of no digest"
