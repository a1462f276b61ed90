"""Claims about a user's own pack, with small ONNX files that have the packs' interfaces."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from anonlib.errors import BackendMissing, ModelUnusable
from anonlib.models.packs import PackRecognizer, PackSwapper
from tests.support.packs import arcface, swapper

installed = pytest.mark.skipif(
    importlib.util.find_spec("insightface") is None, reason="insightface is not installed; it is an optional extra"
)


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
def test_a_name_instead_of_a_path_downloads_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match=r"buffalo_l is not an \.onnx file"):
        PackRecognizer("buffalo_l")


@installed
def test_arguments_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Aligned faces are uint8 \(N, 112, 112, 3\)"):
        PackRecognizer(arcface(tmp_path / "r.onnx", "N")).embed(np.zeros((1, 3, 112, 112), dtype=np.uint8))


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
    with pytest.raises(ModelUnusable, match=r"is a swapping model; a recognition model was asked for"):
        PackRecognizer(swapper(tmp_path / "r2.onnx"))
    with pytest.raises(ModelUnusable, match=r"its last initializer must be the map of identities \(512, 512\)"):
        PackSwapper(swapper(tmp_path / "s.onnx", emap=False))
    with pytest.raises(ModelUnusable, match=r"none\.onnx is not an \.onnx file"):
        PackSwapper(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ModelUnusable, match=r"cannot be read as ONNX"):
        PackSwapper(tmp_path / "text.onnx")
    with pytest.raises(ValueError, match="face of 128 px and 512 numbers"):
        PackSwapper(swapper(tmp_path / "t.onnx")).swap(np.zeros((112, 112, 3), np.uint8), np.zeros(512, np.float32))
