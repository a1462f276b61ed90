"""What is sampled for a person is rendered near nobody, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anonlib.config import JobConfig
from anonlib.faces.mesh import five_points
from anonlib.job import Job
from anonlib.stages.near_subjects import NearSubjectCheck
from tests.support.decoders import Fit
from tests.support.runs import Run, planned_copy, rendered


def sampling(one_shard: Run, fitted: Fit, root: Path, other_angle: float) -> JobConfig:
    method = {"name": "sampling", "decoder": str(fitted.path), "own_angle": 60, "other_angle": other_angle}
    return planned_copy(one_shard, root, method=method)


def test_a_face_that_comes_near_anybody_gets_the_next_identity_and_in_the_end_none(
    one_shard: Run, fitted: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NearSubjectCheck, "near", lambda self, faces: np.ones(len(faces), bool))
    config = sampling(one_shard, fitted, tmp_path, 30)
    summary = Job(config).run()
    reasons = {row["reason"] for row in rendered(Path(config.output.uri))}
    assert summary.code == 0 and summary.fallbacks == summary.faces
    assert "every surrogate was tried, and the last came near somebody of the dataset" in reasons


def test_everybody_is_a_bystander_and_the_angle_is_the_methods(one_shard: Run, fitted: Fit, tmp_path: Path) -> None:
    seen: list[tuple[int, float, bool]] = []
    real = NearSubjectCheck.near

    def watched(self: NearSubjectCheck, faces):  # type: ignore[no-untyped-def]
        near = real(self, faces)
        embedded = self.recognizer.embed(
            [photo.out for photo, _ in faces], [five_points(face.mesh) for _, face in faces]
        )
        angle = np.degrees(np.arccos((self.painter.decoder.identity(embedded) @ self.people.T).max(axis=1)))
        seen.extend((len(self.people), float(one), bool(close)) for one, close in zip(angle, near, strict=True))
        return near

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NearSubjectCheck, "near", watched)
        Job(sampling(one_shard, fitted, tmp_path, 30)).run()
    assert {people for people, _, _ in seen} == {8}
    assert seen and all(close == (angle < 30) for _, angle, close in seen)
