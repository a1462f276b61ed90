"""The findings of an audit, as report.json holds them; gate and report are made from these alone.

Every figure is a mean with its 95 % interval by people. Nothing here names a person, a key or an original. What could
not be measured is None, and the reason stands beside it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from anonlib.config import Frozen


class Figure(Frozen):
    """A mean over `count` photos (or pairs) with its 95 % interval; `chance` is what guessing gives."""

    value: float | None
    low: float | None
    high: float | None
    count: int
    chance: float | None = None


class Attack(Frozen):
    """One attack by one recognizer, or by an attacker trained here, which counts its `target`, rank-1 or TAR.

    `held_out`: the method never used this recognizer. `baselines`: the same attack on other versions of the photos, by
    name. Paired by photo, `identity`: the release minus one-face, of faces that were replaced; `context`: one-face
    minus solid. `groups`: by gender, age, pose and size, the figures of the released photos by name.
    """

    name: str
    target: str
    recognizer: str
    held_out: bool
    released: Figure
    baselines: dict[str, Figure]
    identity: Figure | None = None
    context: Figure | None = None
    groups: dict[str, dict[str, Figure]] = Field(default_factory=dict)
    worst_class: Figure | None = None
    worst_person: Figure | None = None
    note: str = ""


class Disclosure(Frozen):
    """What the release's own records tell about people: its tables, its manifest, and who wears what.

    `recognizer` is empty where no picture is looked at. `allowed`: the mean of what the claim allows, over the same
    photos or people, and `allowed_by` what that is. `excess`: found minus allowed, paired by photo. `judged_by`: which
    of its figures the gate holds against the policy; None: reported only.
    """

    name: str
    target: str
    recognizer: str = ""
    found: Figure
    allowed: float | None = None
    allowed_by: str = ""
    excess: Figure | None = None
    judged_by: Literal["high", "low", "value"] | None = None
    note: str = ""


class LeakCheck(Frozen):
    """One thing that must not be in a release: `found` of `checked` things have it; `where` names a few by path."""

    name: str
    checked: int
    found: int
    where: tuple[str, ...] = ()
    note: str = ""


class Measure(Frozen):
    """A measure of utility on `released` and on `baselines`; `better`: whether higher or lower values are good."""

    name: str
    released: Figure
    baselines: dict[str, Figure] = Field(default_factory=dict)
    unit: str = "share"
    better: Literal["higher", "lower"] = "higher"
    note: str = ""


class Missed(Frozen):
    """Faces that may have been overlooked: `second` is the share of images in which a second look finds one.

    `sampled`, `wrong`, `upper`: images that a person judged, those with a face left, and the Clopper-Pearson bound.
    """

    second: Figure
    second_by: str
    sampled: int = 0
    wrong: int = 0
    upper: float = 1.0
    confidence: float = 0.95


class ReleaseCounts(Frozen):
    """The reconciliation: images in = released + no_face + quarantined; faces by what became of them."""

    shards: int
    images: int
    released: int
    no_face: int
    quarantined: int
    faces: int
    methods: dict[str, int]
    fallbacks: dict[str, int]
    quarantine_reasons: dict[str, int]


class ClaimSection(Frozen):
    """What the certificate proves, in its own words, and the sizes behind it: people -> how many classes have them."""

    kind: str
    text: str
    k: int | None = None
    class_sizes: dict[int, int] = Field(default_factory=dict)
    effective_sizes: dict[int, int] = Field(default_factory=dict)
    epsilon: float | None = None
    epsilon_unit: str = ""


About = Literal["certificate", "identity", "context", "records", "leak", "missed", "utility"]


class GateLine(Frozen):
    """One line of the policy: the bound that counts, the limit, and whether it holds; `about`: what it is a line of."""

    about: About
    name: str
    limit: float | None
    bound: float | None
    passed: bool
    why: str


class ModelUse(Frozen):
    """A model or file that made the release or judged it; `commercial` None where only its own terms can say."""

    name: str
    role: str
    licence: str
    commercial: bool | None
    sha256: str
    used_for: Literal["release", "audit"]


class AuditReport(Frozen):
    """The whole of report.json.

    `labelled`: the dataset said who is in the photos attacked, and not a clustering. `quick`: fewer photos were looked
    at, and nothing was trained. `passed`: every line of `gate` holds. `thresholds`: the cosines from which recognizers
    accept a pair at a false accept rate of 1e-3.
    """

    version: int = 3
    release: str
    method: str
    settings: dict[str, str | int | float | bool | None]
    certificate_sha256: str
    claim: ClaimSection
    people: int
    photos: int
    labelled: bool
    quick: bool = False
    counts: ReleaseCounts
    passed: bool
    gate: tuple[GateLine, ...]
    thresholds: dict[str, float]
    attacks: tuple[Attack, ...]
    disclosures: tuple[Disclosure, ...] = ()
    leaks: tuple[LeakCheck, ...]
    utility: tuple[Measure, ...]
    missed: Missed
    models: tuple[ModelUse, ...]
    software: dict[str, str]

    @property
    def failed(self) -> list[GateLine]:
        """The lines of the policy that do not hold."""
        return [line for line in self.gate if not line.passed]
