"""`import anonlib` is light, and what it offers does what the command line does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import anonlib
from anonlib.errors import ConfigError, VerificationError
from anonlib.faces.centerface import CenterFaceDetector
from anonlib.synthesis.redact import GREY
from tests.support import photos
from tests.support.runs import job


def test_importing_anonlib_loads_nothing_else_and_offers_what_it_lists() -> None:
    code = (
        "import sys, anonlib\nprint(*(name for name in sys.modules if name.startswith(('anonlib.', 'numpy', 'cv2'))))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
    for name in anonlib.__all__:
        assert getattr(anonlib, name) is not None and name in dir(anonlib)
    with pytest.raises(AttributeError, match="no attribute 'Anonymiser'"):
        _ = anonlib.Anonymiser  # type: ignore[attr-defined]


def test_a_job_is_loaded_from_a_file_or_a_mapping_and_overrides_change_single_keys(tmp_path: Path) -> None:
    source = photos.tar(tmp_path / "input" / "00000.tar", [("a.jpg", photos.jpeg(photos.nobody()))]).parent
    config = job(source, tmp_path, method={"name": "solid", "k": 9})
    (tmp_path / "job.yaml").write_text(config.to_yaml())
    assert anonlib.load_job(str(tmp_path / "job.yaml")).config == anonlib.Job(config).config
    document = config.model_dump(mode="json")
    changed = anonlib.load_job(document, method={"k": 7}, ray={"wait_s": 1.0})
    assert (changed.config.method.name, changed.config.method.k, changed.config.ray.wait_s) == ("solid", 7, 1.0)
    assert document == config.model_dump(mode="json")
    assert changed.run().no_face == 1
    assert anonlib.verify(config.output.uri).certificate.counts.images == 1
    with pytest.raises(VerificationError):
        anonlib.verify(config.output.uri, key="0" * 64)
    with pytest.raises(ConfigError, match=r"method\.k"):
        anonlib.load_job(document, method={"k": "many"})


@pytest.mark.parametrize("column", ["array", "list"])
def test_an_anonymizer_hides_faces_and_leaves_the_rest_of_the_photo(column: str) -> None:
    faces, nobody = photos.astronaut(), photos.nobody()
    nobody = np.resize(nobody, faces.shape) if column == "array" else nobody
    images: Any = np.stack([faces, nobody]) if column == "array" else [faces, nobody]
    found = anonlib.Anonymizer("solid")({"image": images, "caption": ["a", "b"]})
    assert list(found["status"]) == ["released", "no_face"] and found["caption"] == ["a", "b"]
    assert isinstance(found["image"], type(images)) and np.array_equal(found["image"][1], nobody)
    x0, y0, x1, y1 = found["boxes"][0][0].astype(int)
    assert (found["image"][0][(y0 + y1) // 2, (x0 + x1) // 2] == GREY).all()
    assert np.array_equal(found["image"][0][:, : x0 // 2], faces[:, : x0 // 2])
    assert np.array_equal(faces, photos.astronaut()), "the caller's own array is not changed"


def test_what_cannot_be_treated_comes_back_hidden_and_never_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("injected")

    with pytest.raises(ConfigError, match="k-diff needs a plan of all persons"):
        anonlib.Anonymizer("k-diff")
    odd = [photos.astronaut().astype(np.float32), b"no image", None, photos.astronaut()[..., 0]]
    found = anonlib.Anonymizer()({"image": odd})
    monkeypatch.setattr(CenterFaceDetector, "detect", broken)
    failed = anonlib.Anonymizer()({"image": [photos.astronaut()]})
    for one in (found, failed):
        assert set(one["status"]) == {"quarantined"}
        assert all(image.dtype == np.uint8 and (image == GREY).all() for image in one["image"])
    assert failed["image"][0].shape == photos.astronaut().shape


_RAY = """
import numpy as np
import anonlib
from anonlib.config import RayConfig
from anonlib.execution.ray import start
from tests.support import photos
ray = start(RayConfig(actors=1))
rows = [{"image": photos.astronaut(), "key": number} for number in range(3)]
hide = anonlib.Anonymizer("solid")
found = ray.data.from_items(rows).map_batches(hide, batch_size=2, batch_format="numpy").take_all()
serial = anonlib.Anonymizer("solid")({"image": [photos.astronaut()]})
for row in found:
    assert np.array_equal(row["image"], serial["image"][0]) and row["status"] == "released"
    assert np.array_equal(row["boxes"], serial["boxes"][0])
print(sorted(row["key"] for row in found))
"""


@pytest.mark.cluster
def test_an_anonymizer_gives_the_same_in_a_ray_pipeline() -> None:
    done = subprocess.run([sys.executable, "-c", _RAY], capture_output=True, text=True, timeout=180, check=False)
    assert done.stdout == "[0, 1, 2]\n", done.stderr[-3000:]
