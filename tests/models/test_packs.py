"""Claims about a user's own pack, with small ONNX files that have the packs' interfaces."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from anonlib.errors import BackendMissing, ModelUnusable
from anonlib.models.packs import open_recognizer, open_swapper
from tests.support.packs import arcface, swapper

installed = pytest.mark.skipif(
    importlib.util.find_spec("insightface") is None, reason="insightface is not installed; it is an optional extra"
)


def weights_of(path: Path) -> dict[str, np.ndarray]:
    return {weight.name: numpy_helper.to_array(weight) for weight in onnx.load(path).graph.initializer}


@installed
@pytest.mark.parametrize("batch", ["N", 1])
def test_a_recognizer_gets_rgb_and_gives_unit_vectors_row_by_row(batch, tmp_path: Path) -> None:
    path = arcface(tmp_path / "w600k.onnx", batch)
    embed = open_recognizer(path.read_bytes())
    faces = np.random.default_rng(1).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
    faces[2] //= 3
    faces[4] = (255, 0, 0)
    vectors = embed(faces)
    assert vectors.shape == (5, 512) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors[2:3], embed(faces[2:3]), atol=1e-6)
    red = np.array([1.0, -1.0, -1.0]) @ weights_of(path)["w"]
    assert np.allclose(vectors[4], red / np.linalg.norm(red), atol=1e-5)


@installed
def test_a_swapper_gets_rgb_and_the_mapped_identity_and_answers_with_a_face(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = swapper(tmp_path / "swap.onnx")
    weights = weights_of(path)
    random = np.random.default_rng(2)
    face = random.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    source = random.standard_normal(512).astype(np.float32)
    source /= np.linalg.norm(source)
    latent = source @ weights["emap"]
    colour = 1 / (1 + np.exp(-(latent / np.linalg.norm(latent)) @ weights["w"]))
    expected = 255 * (0.5 * colour + 0.05 * face / 255 + weights["speckles"][0].transpose(1, 2, 0))
    assert np.abs(open_swapper(path.read_bytes())(face, source) - expected).max() <= 0.51
    assert capsys.readouterr().out == "", "insightface's own chatter stays off the terminal"


@installed
def test_a_file_of_another_kind_is_told(tmp_path: Path) -> None:
    recognizer = arcface(tmp_path / "r.onnx", 1).read_bytes()
    with pytest.raises(ModelUnusable, match=r"inputs must be a face \(1, 3, 128, 128\) and an identity \(1, 512\)"):
        open_swapper(recognizer)
    with pytest.raises(ModelUnusable, match=r"is a swapping model; a recognition model was asked for"):
        open_recognizer(swapper(tmp_path / "s.onnx").read_bytes())
    with pytest.raises(ModelUnusable, match=r"its last initializer must be the map of identities \(512, 512\)"):
        open_swapper(swapper(tmp_path / "s.onnx", emap=False).read_bytes())
    with pytest.raises(ModelUnusable, match=r"cannot be read as ONNX"):
        open_swapper(b"no network")


def test_without_insightface_the_sentence_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendMissing, match=r"pip install anonlib\[insightface\]"):
        open_recognizer(b"any")
