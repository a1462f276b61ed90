"""SCRFD runs from a file of the user's, here a toy network of its interface."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from anonlib.anonymizer import Anonymizer
from anonlib.config import DetectorConfig
from anonlib.errors import ConfigError
from anonlib.faces.detect import detector_file, open_detector
from anonlib.job import Job
from anonlib.storage import open_storage
from anonlib.synthesis.redact import GREY
from anonlib.verification.release import verify
from anonlib.workspace.schemas import RELEASED
from tests.support import photos
from tests.support.packs import scrfd, yolo
from tests.support.runs import job, manifest, run_job


def photo() -> NDArray[np.uint8]:
    """A photo with what the toy network takes for a face: a red cell of stride 32, at the photo's own scale."""
    pixels = np.zeros((320, 640, 3), np.uint8)
    pixels[64:96, 96:128, 0] = 255
    return pixels


def settings(path: Path, **changes: object) -> DetectorConfig:
    return DetectorConfig.model_validate({"name": "scrfd", "path": str(path), **changes})


@pytest.mark.parametrize("size", [("height", "width"), (640, 640)])
def test_boxes_and_landmarks_are_in_px_of_the_photo(tmp_path: Path, size: tuple[int | str, int | str]) -> None:
    detector = open_detector(settings(scrfd(tmp_path / "det.onnx", size=size)))
    twice = np.ascontiguousarray(np.kron(photo(), np.ones((2, 2, 1), np.uint8)))
    found, large, none = detector.detect([photo(), twice, np.zeros((100, 80, 3), np.uint8)])
    assert found.boxes.tolist() == [[64, 32, 128, 128]]
    assert found.scores == pytest.approx([127.5 / 128], abs=1e-3)
    assert found.landmarks[0].tolist()[:3] == [[80, 48], [112, 48], [96, 64]]
    assert large.boxes.tolist() == [[128, 64, 256, 256]]
    assert len(none) == 0 and none.landmarks.shape == (0, 5, 2)
    (of_view,) = detector.detect([photo()], [(640, 1280)])
    assert of_view.boxes.tolist() == [[128, 64, 256, 256]]


def test_an_anonymizer_asks_for_the_terms_of_a_users_network(tmp_path: Path) -> None:
    model = onnx.load(scrfd(tmp_path / "det.onnx"))
    onnx.helper.set_model_props(model, {"license": "AGPL-3.0"})
    onnx.save(model, tmp_path / "det.onnx")
    detector = {"name": "scrfd", "path": str(tmp_path / "det.onnx")}
    with pytest.raises(ConfigError, match=r"under 'AGPL-3.0'; if that is allowed here, add scrfd to accept_licences"):
        Anonymizer("solid", detector=detector)
    treated = Anonymizer("solid", detector=detector, accept_licences=["scrfd"])({"image": [photo()]})
    assert treated["status"].tolist() == [RELEASED]


def test_a_job_hides_what_the_users_network_finds_and_names_its_digest(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "one.png").write_bytes(photos.encoded(photo(), "PNG"))
    (tmp_path / "pack").mkdir()
    network = scrfd(tmp_path / "pack" / "det_10g.onnx")
    (tmp_path / "pack" / "w600k_r50.onnx").touch()
    detector = {"name": "scrfd", "path": str(tmp_path / "pack")}
    run = run_job(tmp_path / "input", tmp_path, method={"name": "solid"}, detector=detector, input={
        "uri": str(tmp_path / "input")
    })  # fmt: skip
    assert run.summary.code == 0
    (row,) = manifest(run.output)
    assert [face["box"] for face in row["faces"]] == [[64, 32, 128, 128]]
    released = (run.output / "data" / "one.png").read_bytes()
    assert (photos.decoded(released)[64:96, 80:112] == GREY).all()
    verify(open_storage(str(run.output)), None)
    models = json.loads((run.output / "run.json").read_text())["models"]
    assert list(models) == ["scrfd"] and "user" in models["scrfd"]["licence"]
    scan_key = Job(run.config).scan_key
    network.write_bytes(scrfd(tmp_path / "other.onnx", size=(640, 640)).read_bytes())
    assert Job(run.config).scan_key != scan_key


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "yolo"}, "there is no detector 'yolo'; it is one of centerface, none, scrfd, yuface"),
        ({"name": "centerface,scrfd"}, "scrfd needs detector.path"),
        ({"name": "centerface", "path": "x.onnx"}, "detector.path belongs to detectors of your own files"),
        ({"name": "scrfd", "path": "missing.onnx"}, "missing.onnx cannot be read"),
    ],
)
def test_a_detector_that_cannot_run_is_refused_before_the_job(
    changes: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Job(job(tmp_path / "input", tmp_path / "job", detector=changes, method={"name": "solid"}))


def test_a_file_that_is_no_scrfd_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no network")
    for path, sentence in (
        (yolo(tmp_path / "r.onnx"), "it is no SCRFD"),
        (scrfd(tmp_path / "six.onnx", landmarks=False), "no SCRFD with landmarks"),
        (tmp_path / "text.onnx", "cannot be read as ONNX"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            detector_file(settings(path))
    with pytest.raises(ConfigError, match=r"has 0 files det_\*\.onnx"):
        (tmp_path / "empty").mkdir()
        detector_file(settings(tmp_path / "empty"))
