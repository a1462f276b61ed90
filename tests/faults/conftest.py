"""A redaction of three small shards, quick enough to be repeated under every fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import photos
from tests.support.runs import Run, run_job


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tars: a face, nobody, and a face beside a file that is no image."""
    folder = tmp_path_factory.mktemp("tiny")
    face, empty = photos.jpeg(photos.astronaut()[:300, 80:380]), photos.jpeg(photos.nobody()[:160, :160])
    photos.tar(folder / "00000.tar", [("a.jpg", face)])
    photos.tar(folder / "00001.tar", [("b.jpg", empty)])
    photos.tar(folder / "00002.tar", [("c.jpg", face), ("d.jpg", b"no image")])
    return folder


@pytest.fixture(scope="session")
def redacted(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same on a disk, undisturbed; look, do not touch."""
    return run_job(tiny, tmp_path_factory.mktemp("redacted"), method={"name": "solid"})
