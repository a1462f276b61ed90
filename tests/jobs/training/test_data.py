"""Prepared faces hold what the photos show, once, and nobody of the datasets that will judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anonlib.errors import ConfigError
from jobs.training import data
from jobs.training.data import VIEW, PreparedFaces, load, prepare
from tests.support.heads import heads


def test_a_part_holds_what_the_photos_show(faces: PreparedFaces) -> None:
    assert np.allclose(np.linalg.norm(faces.vector, axis=1), 1, atol=1e-4)
    assert faces.view.shape[1:] == (160, 160, 3)
    eyes = np.array(VIEW.landmarks())[:2].mean(axis=0)
    assert np.abs(faces.mesh[:, [33, 263], :2].mean(axis=1) - eyes).mean() < 4


def test_a_second_preparation_reads_no_photo(
    prepared: Path, faces: PreparedFaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "gather", None)
    photos, left_out = prepare(str(prepared.parent / "heads.tar"), prepared)
    assert len(faces) == photos - left_out.total() > 60


def test_people_of_the_judging_dataset_are_left_out(tmp_path: Path) -> None:
    source = str(heads(tmp_path / "heads.tar", 4))
    photos, left_out = prepare(source, tmp_path / "faces", apart_from=[source])
    assert left_out.total() == photos
    with pytest.raises(ConfigError, match="prepare"):
        load(tmp_path / "faces")
