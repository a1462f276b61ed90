"""A finished release with a face that the job missed, photos of nobody, and files that it had to hold back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anonlib.config import JobConfig
from anonlib.faces.centerface import CenterFaceDetector
from tests.support import photos
from tests.support.runs import job, run_job

FACE = (170, 60, 280, 190)
"""A box around the astronaut's face."""


STRICT: dict[str, Any] = {"method": {"name": "solid"}, "detector": {"score": 0.99}}
"""A detector that is too strict to see the astronaut."""


@pytest.fixture(scope="session")
def finished_review_job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Input, workspace and release; look, do not touch."""
    root = tmp_path_factory.mktemp("reviewed")
    striped = photos.astronaut().copy()
    striped[:8] = 255
    first = [
        ("astronaut.png", photos.encoded(photos.astronaut(), "PNG")),
        ("failing.png", photos.encoded(striped, "PNG")),
        ("broken.jpg", b"no image"),
    ]
    nobodies = [(f"nobody-{number}.jpg", photos.jpeg(photos.nobody()[number:])) for number in range(6)]
    photos.tar(root / "input" / "00000.tar", [*first, *nobodies[:3]])
    photos.tar(root / "input" / "00001.tar", nobodies[3:])
    detect = CenterFaceDetector.detect

    def broken(self: Any, images: list[photos.Pixels], *rest: Any) -> Any:
        if any((image[:6] > 250).all() for image in images):
            raise RuntimeError("injected")
        return detect(self, images, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CenterFaceDetector, "detect", broken)
        run_job(root / "input", root, **STRICT)
    yield root


@pytest.fixture
def reviewed(finished_review_job: Path, tmp_path: Path) -> JobConfig:
    """A copy of it, to be reviewed."""
    for name in ("workspace", "release"):
        shutil.copytree(finished_review_job / name, tmp_path / name)
    return job(finished_review_job / "input", tmp_path, **STRICT)
