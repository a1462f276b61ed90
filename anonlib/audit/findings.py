"""The findings of an audit, as report.json holds them; gate and report are made from these alone.

Every figure is a mean with its 95 % interval by people. Nothing here names a person, a key or an original. What could
not be measured is None, and the reason stands beside it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Finding(BaseModel):
    """Frozen, and closed: an unknown key is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(Finding):
    """A mean over `count` photos (or pairs) with its 95 % interval; `chance` is what guessing gives."""

    value: float | None
    low: float | None
    high: float | None
    count: int
    chance: float | None = None


class Group(Finding):
    """The same attack or measure on a part of the photos: `by` is gender, age, pose or size."""

    by: Literal["gender", "age", "pose", "size"]
    name: str
    figure: Figure


class Attack(Finding):
    """One attack by one recognizer, or by an attacker trained here, which counts its `target`: rank-1, TAR, AUC, ...

    `held_out`: the method never used this recognizer. `baselines`: the same attack on clear photos, on photos blurred,
    pixelated and hidden under a flat ellipse (solid), and on photos with new faces that many people share (one-face,
    one-face-all). Paired by photo, `identity`: the release minus one-face, of faces that were replaced, which is what
    the method's own faces tell; `context`: one-face minus solid, which is what any natural face leaves.
    """

    name: str
    target: str
    recognizer: str
    held_out: bool
    released: Figure
    baselines: dict[str, Figure]
    identity: Figure | None = None
    context: Figure | None = None
    groups: tuple[Group, ...] = ()
    worst_class: Figure | None = None
    worst_person: Figure | None = None
    note: str = ""


class Disclosure(Finding):
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


class Threshold(Finding):
    """The cosine at which `recognizer` accepts a share `far` of clear pairs of `people` who are not reported on."""

    recognizer: str
    cosine: float
    far: float
    pairs: int
    people: int
    measured_here: bool


class Histogram(Finding):
    """Shares of cosines between `edges` (n + 1): clear pairs of one person, of two, and released against clear."""

    recognizer: str
    edges: tuple[float, ...]
    genuine: tuple[float, ...]
    impostor: tuple[float, ...]
    released: tuple[float, ...]
    threshold: float


class LeakCheck(Finding):
    """One thing that must not be in a release: `found` of `checked` things have it; `where` names a few by path."""

    name: str
    checked: int
    found: int
    where: tuple[str, ...] = ()
    note: str = ""


class Measure(Finding):
    """A measure of utility on `released` and on `baselines`; `better`: whether higher or lower values are good."""

    name: str
    released: Figure
    baselines: dict[str, Figure] = Field(default_factory=dict)
    unit: str = "share"
    better: Literal["higher", "lower"] = "higher"
    groups: tuple[Group, ...] = ()
    note: str = ""


class Missed(Finding):
    """Faces that may have been overlooked: `second` is the share of images in which a second look finds one.

    `sampled`, `wrong`, `upper`: images that a person judged, those with a face left, and the Clopper-Pearson bound.
    """

    second: Figure
    second_by: str
    sampled: int = 0
    wrong: int = 0
    upper: float = 1.0
    confidence: float = 0.95


class ReleaseCounts(Finding):
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


class ClaimSection(Finding):
    """What the certificate proves, in its own words, and the sizes behind it."""

    kind: str
    text: str
    k: int | None = None
    class_sizes: dict[int, int] = Field(default_factory=dict)
    effective_sizes: dict[int, int] = Field(default_factory=dict)
    epsilon: float | None = None
    epsilon_unit: str = ""


About = Literal["certificate", "identity", "context", "records", "leak", "missed", "utility"]


class GateLine(Finding):
    """One line of the policy: the bound that counts, the limit, and whether it holds; `about`: what it is a line of."""

    about: About
    name: str
    limit: float | None
    bound: float | None
    passed: bool
    why: str


class Gate(Finding):
    """The policy, line by line; `passed` if every line is."""

    passed: bool
    lines: tuple[GateLine, ...]

    @property
    def failed(self) -> list[GateLine]:
        """The lines that do not hold."""
        return [line for line in self.lines if not line.passed]


class ModelUse(Finding):
    """A model or file that made the release or judged it; `commercial` None where only its own terms can say."""

    name: str
    role: str
    licence: str
    commercial: bool | None
    sha256: str
    used_for: Literal["release", "audit"]


class AuditReport(Finding):
    """The whole of report.json; `labelled`: the dataset said who is in the photos attacked, and not a clustering;
    `quick`: fewer photos were looked at, and nothing was trained."""

    version: int = 2
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
    gate: Gate
    thresholds: tuple[Threshold, ...]
    attacks: tuple[Attack, ...]
    disclosures: tuple[Disclosure, ...] = ()
    histograms: tuple[Histogram, ...]
    leaks: tuple[LeakCheck, ...]
    utility: tuple[Measure, ...]
    missed: Missed
    models: tuple[ModelUse, ...]
    software: dict[str, str]
