"""A decoder draws the face that a vector means, through the real renderer, and says where it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from anonlib.cli import app
from anonlib.faces.attributes import AttributeReader
from anonlib.faces.detect import CenterFaceDetector
from anonlib.faces.embed import Recognizer
from anonlib.faces.mesh import FaceMesh, five_points
from anonlib.models.fetch import model_bytes
from anonlib.models.runtime import load_engine
from anonlib.stages.people import SAME_PERSON
from anonlib.synthesis.canonical import shape_model
from anonlib.synthesis.compositor import render
from anonlib.synthesis.textures.average import Texture
from anonlib.synthesis.textures.linear import Decoder
from anonlib.training.decoder import directions
from anonlib.training.examples import fault_of
from tests.support import photos
from tests.support.decoders import TERMS, Fit, heads

CLI = CliRunner()
MESH = "facemesh"


class Photo:
    """The astronaut with other faces, seen by real networks."""

    def __init__(self) -> None:
        self.rgb = photos.astronaut()
        self.found = CenterFaceDetector(load_engine(model_bytes("centerface")), side=640, score=0.4).detect([self.rgb])
        self.mesh = FaceMesh(load_engine(model_bytes(MESH)))
        self.own = self.mesh.fit([self.rgb], self.found)[0].points[0]
        self.recognizer = Recognizer("dlib-resnet", load_engine(model_bytes("dlib-resnet")))
        self.reader = AttributeReader(load_engine(model_bytes("age-gender")), None)

    def wearing(self, textures: Sequence[Texture]) -> list[NDArray[np.uint8]]:
        out = []
        for texture in textures:
            out.append(self.rgb.copy())
            render(self.rgb, self.own, 0.5, texture).paste(out[-1])
        return out

    def points(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        return [five_points(mesh.points[0]) for mesh in self.mesh.fit(images, self.found * len(images))]


@pytest.fixture(scope="module")
def photo() -> Photo:
    return Photo()


def strangers(decoder: Decoder, count: int) -> NDArray[np.float32]:
    """Vectors of the bank, each the least like those before it."""
    chosen = [0]
    similar = decoder.bank.vectors @ decoder.bank.vectors.T
    while len(chosen) < count:
        chosen.append(int(similar[chosen].max(axis=0).argmin()))
    return decoder.bank.vectors[chosen]


def test_a_decoded_face_is_nearer_to_its_vector_than_to_others(fitted: Fit, photo: Photo) -> None:
    decoder, z = fitted.decoder, strangers(fitted.decoder, 10)
    images = photo.wearing([decoder.decode(one, 0.5, 30) for one in z])
    seen = decoder.identity(photo.recognizer.embed(images, photo.points(images)))
    similarity = seen @ z.T
    own = np.diag(similarity)
    others = similarity[~np.eye(len(z), dtype=bool)]
    assert (similarity.argmax(axis=1) == np.arange(len(z))).mean() >= 0.6
    assert own.mean() > others.mean() + 0.25


def test_gender_is_followed_whatever_the_vector(fitted: Fit, photo: Photo) -> None:
    decoder = fitted.decoder
    random = np.random.default_rng(0).standard_normal((4, len(decoder.centre))).astype(np.float32)
    z = np.concatenate([strangers(decoder, 4), random / np.linalg.norm(random, axis=1, keepdims=True)])
    as_woman, as_man = (photo.wearing([decoder.decode(one, female, 30) for one in z]) for female in (1.0, 0.0))
    both = as_woman + as_man
    female = photo.reader.read(both, photo.points(both)).female
    assert (female[: len(z)] > female[len(z) :]).all()
    assert (female[: len(z)] - female[len(z) :]).mean() > 0.3


def test_age_is_followed(fitted: Fit, photo: Photo) -> None:
    z = strangers(fitted.decoder, 6)
    both = photo.wearing([fitted.decoder.decode(one, 0.5, age) for age in (60, 20) for one in z])
    age = photo.reader.read(both, photo.points(both)).age
    assert age[: len(z)].mean() > age[len(z) :].mean()


def test_a_vector_from_anywhere_on_the_sphere_is_no_more_unusual_than_a_face(fitted: Fit) -> None:
    decoder = fitted.decoder
    random = np.random.default_rng(1).standard_normal((20, len(decoder.centre))).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    span = [float(np.abs(decoder.decode(one, 0.5, 30).detail).max()) for one in random]
    natural = [float(np.abs(decoder.decode(one, 0.5, 30).detail).max()) for one in decoder.bank.vectors]
    assert np.mean(span) < 1.5 * np.mean(natural)


def test_the_file_says_what_it_is(fitted: Fit) -> None:
    about = fitted.decoder.about
    assert (about.fitted_on, about.terms, about.commercial) == ("demo heads", TERMS, True)
    assert fitted.decoder.digest == hashlib.sha256(fitted.path.read_bytes()).hexdigest()
    assert fitted.path.stat().st_size < 60e6


def test_the_command_says_what_was_used_and_what_was_not(fitted: Fit) -> None:
    used, shots = fitted.decoder.about.faces, 48 * 3 + 1
    left_out = [line.split() for line in fitted.said.splitlines() if "left out" in line]
    assert used + sum(int(words[0].replace(",", "")) for words in left_out) == shots
    assert "1 left out: no face was found" in fitted.said
    assert f"{used} used" in fitted.said and TERMS in fitted.said and fitted.decoder.digest in fitted.said


def test_the_bank_holds_each_person_once(fitted: Fit) -> None:
    bank, centre = fitted.decoder.bank, fitted.decoder.centre
    assert 10 <= len(bank) <= 48
    # Back from the identity space: the unit vector whose offset from the centre points that way.
    along = bank.vectors @ centre
    length = -along + np.sqrt(along**2 + 1 - centre @ centre)
    raw = centre + length[:, None] * bank.vectors
    assert np.allclose(np.linalg.norm(raw, axis=1), 1, atol=1e-3)
    assert (raw @ raw.T - 2 * np.eye(len(raw))).max() < SAME_PERSON + 1e-3


def test_what_a_vector_says_of_gender_is_not_heard() -> None:
    rng = np.random.default_rng(0)
    looks = np.stack([rng.random(400), rng.uniform(20, 80, 400), rng.random(400)], axis=1).astype(np.float32)
    points = rng.standard_normal((400, 12)).astype(np.float32)
    points[:, 3] += 4 * looks[:, 0]
    axes = directions(points / np.linalg.norm(points, axis=1, keepdims=True), looks)
    told = axes[:, 3] / np.linalg.norm(axes, axis=1)
    assert len(axes) == 10
    assert np.abs(told).max() < 0.3


def test_directions_in_which_no_face_varies_are_not_read() -> None:
    rng = np.random.default_rng(0)
    looks = rng.random((400, 3)).astype(np.float32)
    points = (rng.standard_normal((400, 12)) * np.array([1.0] * 8 + [1e-3] * 4)).astype(np.float32)
    axes = directions(points, looks)
    assert len(axes) <= 8
    assert np.allclose((points @ axes.T).std(axis=0), 1, atol=0.05)


def test_faces_have_the_shipped_mean_shape_on_average(fitted: Fit) -> None:
    """However the photos were cut that it was fitted on."""
    bank = fitted.decoder.bank
    drawn = [fitted.decoder.decode(*one).shape for one in zip(bank.vectors, bank.female, bank.age, strict=True)]
    assert np.abs(np.mean(drawn, axis=0) - shape_model().mean).max() < 2e-3
    assert np.std(drawn, axis=0).max() > 1e-2


def test_too_few_faces_are_refused_with_the_reasons(tmp_path: Path) -> None:
    source = heads(tmp_path / "few.tar", people=4)
    output = tmp_path / "decoder.npz"
    done = CLI.invoke(app, ["fit-decoder", "--input", str(source), "--output", str(output), "--terms", TERMS])
    assert done.exit_code == 1
    assert "of 13 photos have a face to learn from" in done.stderr and "no face was found: 1" in done.stderr
    assert not output.exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--terms", " "], "under which terms"),
        (["--terms", TERMS, "--faces", "10"], "at least 60 faces"),
        (["--terms", TERMS], "nothing-here"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_read(flags: list[str], sentence: str, tmp_path: Path) -> None:
    places = ["--input", str(tmp_path / "nothing-here"), "--output", str(tmp_path / "decoder.npz")]
    done = CLI.invoke(app, ["fit-decoder", *places, *flags])
    assert done.exit_code == 1
    assert sentence in done.stderr and done.stderr.count("\n") == 1


GOOD = {"presence": 1.0, "glasses": -1.0, "clarity": 0.9, "yaw": 5.0, "pitch": -5.0, "sharpness": 30.0}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"glasses": 0.5}, "glasses"),
        ({"yaw": -50.0}, "turned away"),
        ({"pitch": 40.0}, "turned away"),
        ({"sharpness": 2.0}, "blurred"),
        ({"clarity": 0.2}, "covered or in hard light"),
        ({"presence": 0.1}, "the mesh does not fit"),
        ({"landmarks": [0.0, 0.0, 10.0, *[0.0] * 7]}, "too small"),
    ],
)
def test_a_face_that_is_not_used_has_its_reason(change: dict[str, object], fault: str | None) -> None:
    assert fault_of(GOOD | {"landmarks": [0.0, 0.0, 60.0, *[0.0] * 7]} | change) == fault
