"""A sampled identity keeps clear of everybody, and so must the face that it becomes.

`sampling` promises angles of vectors, but a decoder is not exact: rendered into photos of LFW, faces lie 67 degrees
from the vector they were decoded from, and 6 % of them come within 50 degrees of somebody in the dataset whom the
vector itself kept clear of. So the output is embedded again and held against everybody.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anonlib.config import JobConfig
from anonlib.faces.embed import Recognizer
from anonlib.faces.mesh import five_points
from anonlib.methods.decoders import FaceDecoderSet
from anonlib.models.requirements import PIPELINE_RECOGNIZER, ModelBytes, load
from anonlib.privacy.sphere import cosine_beyond
from anonlib.stages.people import matrix
from anonlib.stages.plan import subjects_of
from anonlib.stages.recheck import CheckedFace, CheckedImage
from anonlib.workspace.layout import StageStore


class NearSubjectCheck:
    """Everybody of a plan as points of the identity space (n, d), and the recognizer that put them there."""

    def __init__(self, job: JobConfig, models: ModelBytes, painter: FaceDecoderSet, plan: StageStore) -> None:
        self.painter = painter
        self.people = painter.decoder.identity(matrix(subjects_of(plan, ["template"]), "template"))
        self.limit = cosine_beyond(job.method.other_angle)
        self.recognizer = Recognizer(PIPELINE_RECOGNIZER, load(models, PIPELINE_RECOGNIZER, job))

    def near(self, faces: Sequence[tuple[CheckedImage, CheckedFace]]) -> NDArray[np.bool_]:
        """(n,) Whether an output lies within the method's `other_angle` of anybody, its own person included."""
        outs = [photo.out for photo, _ in faces]
        embedded = self.recognizer.embed(outs, [five_points(face.mesh) for _, face in faces])
        # One by one, since the rounding of a product of matrices depends on how many there are.
        nearest = [(self.people @ one).max() for one in self.painter.decoder.identity(embedded)]
        return np.array(nearest) > self.limit
