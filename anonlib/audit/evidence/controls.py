"""Controls: the photos of a release with a new face that many people share, put there by the release's own renderer.

Everybody of a gender, age band and tone gets one face of the gallery (one-face), or everybody one (one-face-all). So
nothing in such a photo says who it is but what any natural face leaves: hair, outline, pose, light, expression. What a
method gives away beyond that is its own. The band is that of the plan's person, as it is for the method's own faces: a
band by photo would tell how old each photo looks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from anonlib.audit.evidence.evidence import CONTROLS, ONE_FACE, Look
from anonlib.errors import contained
from anonlib.job import Job
from anonlib.methods import method_of
from anonlib.methods.redaction import fallback_of
from anonlib.privacy.strata import Stratum, stratum_of
from anonlib.synthesis.base import FaceTexture, Pixels
from anonlib.synthesis.describe import happiness
from anonlib.synthesis.redact import redact
from anonlib.synthesis.textures.gallery import Gallery
from anonlib.workspace import layout
from anonlib.workspace.schemas import FACES
from anonlib.workspace.tables import Row

ASKED = ("presence", "yaw", "bare", "tone")
"""Columns of FACES by which a method refuses to replace a face, beside its landmarks, and the tone of its skin."""


class Controls:
    """Draws the controls of a job; a face that its method would not replace is hidden as the job hides it. Where nobody
    was planned (a redaction) the stratum is that of the photo."""

    def __init__(self, job: Job) -> None:
        config, plan = job.config, layout.plan_store(job.stores, job.plan_key)
        self.method, self.extent = method_of(config.method), config.method.region
        self.hidden = fallback_of(config.method.name, config.fallback).kind
        self.gallery, self._faces = _gallery(), dict[Stratum, FaceTexture]()
        is_planned = (plan.committed("plan") or {}).get("subjects")
        subjects = plan.subjects(["faces", "stratum"]).to_pylist() if is_planned else ()
        self.strata: dict[str, Stratum] = {face: tuple(row["stratum"]) for row in subjects for face in row["faces"]}

    @property
    def key(self) -> str:
        """Names what is drawn: the gallery, how far a face reaches, how others are hidden, and who is in which band."""
        strata = hashlib.sha256(repr(sorted(self.strata.items())).encode()).hexdigest()
        return f"{self.gallery.digest} {self.extent} {self.hidden} {strata}"

    def draw(
        self,
        photos: Sequence[tuple[Pixels, Row, Sequence[Row]]],
        meshes: NDArray[np.float32],
        clear: Look,
    ) -> Iterator[tuple[str, list[Pixels]]]:
        """Each control's name and its pictures of n photos: an image, the FACES row of the face that is looked at and
        all rows; of these n faces `meshes` (n, 468, 3) px and the `clear` look. Other faces are under a flat ellipse.
        """
        columns = pa.schema([FACES.field(name) for name in (*ASKED, "landmarks")])
        refused = self.method.eligible(pa.Table.from_pylist([dict(main) for _, main, _ in photos], columns))
        for name in CONTROLS:
            drawn = []
            for number, (image, main, rows) in enumerate(photos):
                drawn.append(image.copy())
                for row in rows:
                    if row["face_id"] != main["face_id"]:
                        redact(drawn[-1], np.array(row["box"], np.float32), "solid")
                if refused[number] is None:
                    seen = stratum_of(float(clear.female[number]), float(clear.age[number]), main.get("tone"))
                    kind = self.strata.get(main["face_id"], seen)
                    self._put(drawn[-1], main, meshes[number], clear, number, kind if name == ONE_FACE else ())
                else:
                    redact(drawn[-1], np.array(main["box"], np.float32), self.hidden)
            yield name, drawn

    def _put(
        self, image: Pixels, main: Row, mesh: NDArray[np.float32], clear: Look, number: int, kind: Stratum
    ) -> None:
        """The face of a stratum in `image`, in place, as face `number` of the clear look lies and looks there."""
        from anonlib.synthesis.compositor import render

        with contained("drawing a control"):
            happy, gaze = happiness(clear.expression[number].tolist()), clear.eyes[number]
            render(image, mesh, happy, self.face(kind), self.extent, gaze).paste(image)
            return
        redact(image, np.array(main["box"], np.float32), self.hidden)

    def face(self, kind: Stratum) -> FaceTexture:
        """The face that is nearest to the mean of those of a stratum, of all for (); of the gender where there is none
        of the band."""
        if kind not in self._faces:
            rows = np.array(next(found for level in (3, 2, 1, 0) if (found := self.gallery.rows(kind[:level]))))
            vectors = self.gallery.bank.vectors[rows]
            self._faces[kind] = self.gallery.texture(int(rows[np.argmax(vectors @ vectors.mean(axis=0))]))
        return self._faces[kind]


@cache
def _gallery() -> Gallery:
    """The gallery that ships with anonlib, whatever the method's faces are made of."""
    return Gallery.from_bytes(Gallery.shipped())
