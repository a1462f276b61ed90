"""Prepared faces hold what the photos show, once, and nobody of the datasets that will judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anonlib.errors import ConfigError
from anonlib.training import data
from anonlib.training.data import VIEW, PreparedFaces, learned_vectors, load, prepare, tally
from tests.support.decoders import heads


def test_a_part_holds_what_the_photos_show(prepared: Path, faces: PreparedFaces) -> None:
    photos, left_out = tally(prepared)
    assert len(faces) == photos - left_out.total() > 60
    assert np.allclose(np.linalg.norm(faces.vector, axis=1), 1, atol=1e-4)
    assert np.array_equal(learned_vectors(prepared), faces.vector)
    assert faces.view.shape[1:] == (160, 160, 3)
    eyes = np.array(VIEW.landmarks())[:2].mean(axis=0)
    assert np.abs(faces.mesh[:, [33, 263], :2].mean(axis=1) - eyes).mean() < 4


def test_a_second_preparation_reads_no_photo(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "Gatherer", None)
    prepare(str(prepared.parent / "heads.tar"), prepared)


def test_people_of_the_judging_dataset_are_left_out(tmp_path: Path) -> None:
    source = str(heads(tmp_path / "heads.tar", 4))
    prepare(source, tmp_path / "faces", apart_from=[source])
    photos, left_out = tally(tmp_path / "faces")
    assert left_out.total() == photos
    with pytest.raises(ConfigError, match="prepare"):
        load(tmp_path / "faces")
