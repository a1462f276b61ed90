"""What a method of replacing faces is: its settings, what it claims, what it needs, what it plans and how it renders.

Nothing outside this folder asks which method a job has. A method is a class in one of its files and a line in METHODS.
The folder imports without OpenCV, torch or faiss: verification and every command read settings and claims from here.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from anonlib.config import JobConfig, MethodConfig
from anonlib.models.catalog import FACE_MODELS, PIPELINE_RECOGNIZER, VERIFIERS
from anonlib.privacy.classes import Stratum
from anonlib.privacy.dp import Cost, draw_id
from anonlib.privacy.keys import Keyring, Purpose
from anonlib.synthesis.base import Extent, FaceTexture, IdentityDraw

if TYPE_CHECKING:
    import pyarrow as pa

    from anonlib.synthesis.compositor import Rendered
    from anonlib.synthesis.light import Light
    from anonlib.synthesis.textures.average import Texture
    from anonlib.verification.certificate import Claim

Vectors = NDArray[np.float32]
MAX_YAW = 60.0  # degrees beyond which a face is redacted, not replaced
LEAST_BARE = 0.5  # share of the skin that nothing may cover, else the face is redacted
_FEMALE = {"female": 1.0, "male": 0.0}
_AGES = (27.0, 42.0, 60.0)  # years that a drawn face of each age band shows


USERS_OWN = "the user's own; unknown to anonlib"  # the terms of a file that the user brings


@dataclass(frozen=True)
class MethodFile:
    """What a job needs beside the catalogue's models, and under which terms; `travels`: workers need it too."""

    data: bytes
    terms: str
    travels: bool = True

    @cached_property
    def digest(self) -> str:
        """sha256, hex."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Persons:
    """Persons as columns: `of_face` (n,) person numbers, `ids`, `labels`, `template` (p, d) unit, `strata`, `photos`.

    `labels`: None without one. `photos` (p,): faces that will show a surrogate. `sure` (p,): whether the estimate of
    gender is clear enough to average the person with others. `portraits`: the faces that may be averaged, best first.
    """

    of_face: NDArray[np.int64]
    ids: list[str]
    labels: list[str | None]
    template: Vectors
    strata: list[Stratum]
    photos: NDArray[np.int64]
    sure: NDArray[np.bool_]
    portraits: Mapping[int, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class EarlierReleases:
    """What a ledger knows of these persons.

    `names`: each person's lasting name; `releases`: the classes of each; `groups`: who shared a class in any of them;
    `absences_known`: whether others know who is not in one.
    """

    names: Sequence[str] = ()
    releases: Sequence[Sequence[Sequence[str]]] = ()
    groups: Sequence[Sequence[str]] = ()
    absences_known: bool = True


@dataclass(frozen=True)
class LedgerRow:
    """A person of a release by lasting name: `template` (d,) unit, the id of their `draw` or of their class (`crowd`).

    `labelled`: whether the dataset says who it is.
    """

    person: str
    template: Vectors
    labelled: bool
    draw: str | None = None
    crowd: str | None = None


@dataclass(frozen=True)
class SurrogateAssignment:
    """A person's surrogates in the order they are tried; none and a `reason` if there is none.

    Surrogates and a `reason`: they were dealt to this person alone, and the method's claim does not cover them.
    """

    surrogates: tuple[str, ...] = ()
    class_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class ClassPlan:
    """A class: `members` are person ids, `surrogate` the id of the one that they share."""

    class_id: str
    members: list[str]
    effective_k: int
    stratum: Stratum
    surrogate: str | None


@dataclass(frozen=True)
class SurrogatePlan:
    """A surrogate that is to be made of `donors` (person ids): of the faces in `portraits`, or of the `draw`."""

    surrogate_id: str
    donors: list[str]
    stratum: Stratum
    portraits: list[list[int]]
    draw: IdentityDraw | None = None


@dataclass(frozen=True)
class Assignment:
    """What a method plans: each person's surrogates, and what is behind them."""

    persons: list[SurrogateAssignment]
    classes: list[ClassPlan] = field(default_factory=list)
    surrogates: list[SurrogatePlan] = field(default_factory=list)
    draws: dict[str, IdentityDraw] = field(default_factory=dict)

    def bookings(self, persons: Persons, names: Sequence[str]) -> list[LedgerRow]:
        """What a ledger is to remember of persons with these lasting names: the first draw of each, or its class."""
        rows = []
        for number, (name, assigned) in enumerate(zip(names, self.persons, strict=True)):
            draw = self.draws.get(assigned.surrogates[0]) if assigned.surrogates else None
            if draw or assigned.class_id:
                known = persons.template[number], persons.labels[number] is not None
                rows.append(LedgerRow(name, *known, draw_id(draw.vector) if draw else None, assigned.class_id))
        return rows


class Region(Protocol):
    """Where a face is in a picture: `box` (4,) px, and those of the `others` (n, 4) there; `mesh` (468, 3) px, how
    `happy` (0-1), and `gaze` (8,) of its eyes (faces/gaze.py), where described; `light`, where not that of the picture.
    """

    @property
    def box(self) -> NDArray[np.float32]: ...
    @property
    def others(self) -> NDArray[np.float32]: ...
    @property
    def mesh(self) -> NDArray[np.float32]: ...
    @property
    def happy(self) -> float: ...
    @property
    def gaze(self) -> NDArray[np.float32]: ...
    @property
    def light(self) -> Light | None: ...


class Replacement(Protocol):
    """What a face is replaced by; `digest`: what the manifest calls it, 64 hex digits, None of a redaction."""

    @property
    def digest(self) -> str | None: ...

    def apply(self, picture: NDArray[np.uint8], region: Region) -> float | None:
        """Paint it into a picture (H, W, 3); returns the share of the source's face that it covers, where measured."""
        ...


class SurrogateSource(Protocol):
    """Where a renderer finds what was planned, and released_digest; LookupError for what the workspace lacks."""

    def draw(self, name: str) -> IdentityDraw: ...
    def texture(self, name: str) -> bytes: ...
    def digest(self, name: str) -> str: ...


@dataclass(frozen=True)
class Rendering:
    """A face that `render` makes of a picture and a region: in the photo's pose, expression and light."""

    render: Callable[[NDArray[np.uint8], Region], Rendered]
    digest: str

    def apply(self, picture: NDArray[np.uint8], region: Region) -> float:
        """See Replacement."""
        rendered = self.render(picture, region)
        rendered.paste(picture)
        return rendered.coverage


def textured(texture: FaceTexture, digest: str, extent: Extent) -> Rendering:
    """A face that wears a texture, as far as `extent` reaches."""
    from anonlib.synthesis.compositor import render

    return Rendering(
        lambda picture, region: render(picture, region.mesh, region.happy, texture, extent, region.gaze, region.light),
        digest,
    )


class Method(ABC):
    """A method with its settings; `files` by name, opened on `device` where first used (none: for planning nothing)."""

    Settings: ClassVar[type[MethodConfig]] = MethodConfig
    keys: ClassVar[tuple[str, ...]] = ()  # keys of the settings that mean something to it, as a report lists them
    required: ClassVar[tuple[str, ...]] = ()  # keys that it needs and that other methods refuse
    synthesis: ClassVar[bool] = True
    """Whether it puts a face where one was. A redaction needs boxes alone, and no plan of persons."""
    describe: ClassVar[tuple[str, ...]] = FACE_MODELS
    recheck: ClassVar[tuple[str, ...]] = VERIFIERS
    """The networks that a scan and the check of the output need beside the detector."""
    least_eyes: ClassVar[float] = 0.0  # px between the eyes below which a face is redacted

    def __init__(self, settings: MethodConfig, files: Mapping[str, bytes] | None = None, device: str = "cpu") -> None:
        self.settings, self.files, self.device = settings, dict(files or {}), device
        self.name = settings.name

    def check(self) -> None:  # noqa: B027
        """Raise ValueError, a sentence, for settings that it cannot work with; here none."""

    @property
    def claim(self) -> Claim:
        """The most that it may claim (docs/methods.md)."""
        from anonlib.verification.certificate import NONE, Claim

        return Claim(NONE)

    @property
    def cost(self) -> Cost | None:
        """What one draw costs a person, where that is bounded."""
        return None

    @property
    def serves_few(self) -> bool:
        """Whether persons that too few could hide with get a new face too, outside the claim."""
        return False

    def recognizers_used(self) -> frozenset[str]:
        """Recognizers of its training, its vectors or its re-check: none of them is a held-out judge."""
        return frozenset((PIPELINE_RECOGNIZER, *VERIFIERS)) if self.synthesis else frozenset()

    def read_files(self, job: JobConfig) -> dict[str, MethodFile]:
        """Its files, checked, by name; the driver reads them once. Raises ConfigError."""
        return {}

    def eligible(self, faces: pa.Table) -> list[str | None]:
        """Of each face (n,) why it cannot be replaced, None where it can; from its columns of FACES."""
        from anonlib.faces.mesh import MIN_PRESENCE

        presence, yaw, bare = (np.asarray(faces.column(name), np.float64) for name in ("presence", "yaw", "bare"))
        landmarks = np.asarray(faces.column("landmarks").combine_chunks().flatten(), np.float32).reshape(-1, 5, 2)
        eyes = np.linalg.norm(landmarks[:, 1] - landmarks[:, 0], axis=1)
        reasons: list[str | None] = [None] * faces.num_rows
        # The last of these that holds of a face is the first that a reader should hear of.
        for refused, reason in (
            (eyes < self.least_eyes, f"fewer than {self.least_eyes:g} px between the eyes, too few to change"),
            (bare < LEAST_BARE, f"something covers the face: less than {LEAST_BARE:.0%} of it is bare skin"),
            (np.abs(yaw) > MAX_YAW, f"turned away by more than {MAX_YAW:g} degrees"),
            (presence < MIN_PRESENCE, "the mesh does not fit: hidden, cut off, too small or no face"),
        ):
            for row in np.flatnonzero(refused):
                reasons[row] = reason
        return reasons

    def plan(self, persons: Persons, keyring: Keyring, earlier: EarlierReleases) -> Assignment:
        """Which surrogates each person gets: here its own draws. Raises ConfigError."""
        named = [{self.draw_name(draw, keyring): draw for draw in own} for own in self.draws(persons, keyring)]
        assigned = [SurrogateAssignment(tuple(own)) for own in named]
        return Assignment(assigned, draws={name: draw for own in named for name, draw in own.items()})

    def draws(self, persons: Persons, keyring: Keyring) -> list[list[IdentityDraw]]:
        """Each person's draws in the order they are tried. Raises ConfigError if a person has none."""
        raise NotImplementedError(f"{self.name} plans no surrogates")

    def draw_name(self, draw: IdentityDraw, keyring: Keyring) -> str:
        """Names a draw in a plan: 64 hex digits; keyed, since a plain digest would confirm a guess of the person."""
        raise NotImplementedError(f"{self.name} draws nothing")

    def texture(self, draw: IdentityDraw | None, members: Sequence[Texture]) -> FaceTexture:
        """The face of a SurrogatePlan: of its draw, or of its donors' textures."""
        raise NotImplementedError(f"{self.name} makes no textures")

    @abstractmethod
    def replacement(self, name: str, source: SurrogateSource) -> Replacement:
        """What an assignment's `surrogates` name."""

    def output_check(self, templates: Callable[[], Vectors]) -> Callable[[Vectors], NDArray[np.bool_]] | None:
        """A condition of its own on rendered faces: which (n,) of their vectors (n, d) come near a subject; or None.

        `templates` reads those of all subjects (s, d).
        """
        return None


def released_digest(keyring: Keyring, name: str) -> str:
    """What a release calls a surrogate, by its draw's name or its texture's sha256: keyed, so it confirms no guess."""
    return keyring.digest(Purpose.SURROGATE_DIGEST, name).hex()


def appearance(stratum: Stratum) -> tuple[float, float]:
    """(female 0-1, age in years) that a stratum's new faces show: the band and no more; half and 42 where mixed."""
    gender = stratum[0] if stratum else ""
    band = int(stratum[1].removeprefix("age-")) if len(stratum) > 1 else 1
    return _FEMALE.get(gender, 0.5), _AGES[band]
