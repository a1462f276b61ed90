"""Claims about a user's own pack, with small ONNX files that have the packs' interfaces."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from anonlib.errors import BackendMissing, ModelUnusable
from anonlib.models.packs import PackDetector, PackRecognizer, PackSwapper
from tests.support.packs import arcface, save, swapper

installed = pytest.mark.skipif(
    importlib.util.find_spec("insightface") is None, reason="insightface is not installed; it is an optional extra"
)


def scrfd(path: Path, landmarks: bool = True) -> Path:
    """SCRFD's interface: nine outputs at strides 8, 16, 32, two anchors a cell. A white cell of red is a face.

    At stride 32 the score is the mean of red; box and landmarks are constants in units of the stride.
    """
    nodes, outputs, weights = [], {}, {}
    box = np.array([1, 1, 1, 2], dtype=np.float32)
    five = np.array([-0.5, -0.5, 0.5, -0.5, 0, 0, -0.4, 0.5, 0.4, 0.5], dtype=np.float32)
    for stride in (8, 16, 32):
        pick = np.zeros((2, 3, 1, 1), dtype=np.float32)
        pick[0, 0] = 1.0 if stride == 32 else 0.0
        weights[f"pick{stride}"] = pick
        s = str(stride)
        nodes += [
            helper.make_node("AveragePool", ["input.1"], [f"p{s}"], kernel_shape=[stride] * 2, strides=[stride] * 2),
            helper.make_node("Conv", [f"p{s}", f"pick{s}"], [f"c{s}"], kernel_shape=[1, 1]),
            helper.make_node("Transpose", [f"c{s}"], [f"t{s}"], perm=[2, 3, 0, 1]),
            helper.make_node("Reshape", [f"t{s}", "column"], [f"score{s}"]),
        ]
        for kind, values in (("box", box), ("five", five)):
            weights[f"{kind}{s}v"] = values[None]
            nodes += [
                helper.make_node("Mul", [f"score{s}", "zero"], [f"{kind}{s}z"]),
                helper.make_node("Add", [f"{kind}{s}z", f"{kind}{s}v"], [f"{kind}{s}"]),
            ]
    weights |= {"column": np.array([-1, 1], dtype=np.int64), "zero": np.zeros(1, dtype=np.float32)}
    for kind, width in (("score", 1), ("box", 4), *([("five", 10)] if landmarks else [])):
        outputs |= {f"{kind}{stride}": [f"n{kind}{stride}", width] for stride in (8, 16, 32)}
    return save(path, nodes, outputs, weights, [1, 3, "height", "width"])


@installed
@pytest.mark.parametrize("batch", ["N", 1])
def test_a_recognizer_gives_unit_vectors_row_by_row(batch, tmp_path: Path) -> None:
    model = PackRecognizer(arcface(tmp_path / "w600k.onnx", batch))
    faces = np.random.default_rng(1).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
    faces[2] //= 3
    vectors = model.embed(faces)
    assert vectors.shape == (5, 512) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors[2:3], model.embed(faces[2:3]), atol=1e-6)
    assert model.embed(faces[:0]).shape == (0, 512)


@installed
def test_a_recognizer_is_fed_with_rgb(tmp_path: Path) -> None:
    path = arcface(tmp_path / "w600k.onnx", "N")
    red = np.zeros((1, 112, 112, 3), dtype=np.uint8)
    red[..., 0] = 255
    weights = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    expected = np.array([[1.0, -1.0, -1.0]]) @ weights
    assert np.allclose(PackRecognizer(path).embed(red), expected / np.linalg.norm(expected), atol=1e-5)


@installed
def test_a_detector_gives_boxes_scores_and_landmarks_in_pixels(tmp_path: Path) -> None:
    model = PackDetector(scrfd(tmp_path / "det.onnx"))
    photo = np.zeros((320, 640, 3), dtype=np.uint8)
    photo[64:96, 96:128, 0] = 255  # one cell of stride 32, at its own scale of 1
    found = model.detect(photo)
    assert found.boxes.tolist() == [[64, 32, 128, 128]]
    assert found.scores == pytest.approx([127.5 / 128], abs=1e-3)
    assert found.landmarks[0].tolist()[:3] == [[80, 48], [112, 48], [96, 64]]
    half = model.detect(np.ascontiguousarray(np.kron(photo, np.ones((2, 2, 1), dtype=np.uint8))))
    assert half.boxes.tolist() == [[128, 64, 256, 256]]


@installed
def test_no_face_is_an_empty_result(tmp_path: Path) -> None:
    found = PackDetector(scrfd(tmp_path / "det.onnx")).detect(np.zeros((100, 80, 3), dtype=np.uint8))
    assert (found.boxes.shape, found.scores.shape, found.landmarks.shape) == ((0, 4), (0,), (0, 5, 2))


@installed
def test_a_file_of_the_wrong_kind_is_told(tmp_path: Path) -> None:
    recognizer, detector = arcface(tmp_path / "r.onnx", "N"), scrfd(tmp_path / "d.onnx")
    with pytest.raises(ModelUnusable, match=r"r\.onnx is a recognition model; a detection model was asked for"):
        PackDetector(recognizer)
    with pytest.raises(ModelUnusable, match=r"d\.onnx is a detection model; a recognition model"):
        PackRecognizer(detector)
    with pytest.raises(ModelUnusable, match="boxes without landmarks"):
        PackDetector(scrfd(tmp_path / "six.onnx", landmarks=False))


@installed
def test_a_name_instead_of_a_path_downloads_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match=r"buffalo_l is not an \.onnx file"):
        PackRecognizer("buffalo_l")


@installed
def test_arguments_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        PackDetector(tmp_path / "any.onnx", threshold=1.5)
    with pytest.raises(ValueError, match=r"Aligned faces are uint8 \(N, 112, 112, 3\)"):
        PackRecognizer(arcface(tmp_path / "r.onnx", "N")).embed(np.zeros((1, 3, 112, 112), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"A photo is uint8"):
        PackDetector(scrfd(tmp_path / "d.onnx")).detect(np.zeros((64, 64), dtype=np.uint8))


def test_without_insightface_the_sentence_says_what_to_install(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendMissing, match=r"pip install anonlib\[insightface\]"):
        PackRecognizer(tmp_path / "any.onnx")


@installed
def test_a_swapper_gets_rgb_and_the_mapped_identity_and_answers_with_a_face(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = swapper(tmp_path / "swap.onnx")
    weights = {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}
    random = np.random.default_rng(2)
    face = random.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    source = random.standard_normal(512).astype(np.float32)
    source /= np.linalg.norm(source)
    latent = source @ weights["emap"]
    colour = 1 / (1 + np.exp(-(latent / np.linalg.norm(latent)) @ weights["w"]))
    speckles = weights["speckles"][0].transpose(1, 2, 0)
    expected = 255 * (0.5 * colour + 0.05 * face / 255 + speckles)
    assert np.abs(PackSwapper(path).swap(face, source) - expected).max() <= 0.51
    assert capsys.readouterr().out == "", "insightface's own chatter stays off the terminal"


@installed
def test_what_is_no_swapper_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match=r"inputs must be a face \(1, 3, 128, 128\) and an identity \(1, 512\)"):
        PackSwapper(arcface(tmp_path / "r.onnx", 1))
    with pytest.raises(ModelUnusable, match=r"its last initializer must be the map of identities \(512, 512\)"):
        PackSwapper(swapper(tmp_path / "s.onnx", emap=False))
    with pytest.raises(ModelUnusable, match=r"none\.onnx is not an \.onnx file"):
        PackSwapper(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ModelUnusable, match=r"cannot be read as ONNX"):
        PackSwapper(tmp_path / "text.onnx")
    with pytest.raises(ValueError, match="face of 128 px and 512 numbers"):
        PackSwapper(swapper(tmp_path / "t.onnx")).swap(np.zeros((112, 112, 3), np.uint8), np.zeros(512, np.float32))
