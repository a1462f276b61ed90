"""The network that ships: what recognizers that took no part in it still read, and what a viewer still sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.faces.centerface import CenterFaceDetector
from anonlib.faces.embed import THRESHOLDS, Recognizer
from anonlib.faces.mesh import FaceMesh, five_points
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import load_engine
from anonlib.synthesis.feature_transfer import FeatureTransferNetwork, shipped
from anonlib.training.export import IDENTITIES
from tests.support import photos

OUTSIDERS = ("fr-feature", "faceres")


@dataclass(frozen=True)
class Changed:
    """A photo with its mesh, the way from its person to a donor, and what became of it."""

    before: photos.Pixels
    mesh: NDArray[np.float32]
    way: NDArray[np.float32]
    after: photos.Pixels


@pytest.fixture(scope="module")
def network() -> FeatureTransferNetwork:
    return FeatureTransferNetwork.from_bytes(shipped())


@pytest.fixture(scope="module")
def changed(network: FeatureTransferNetwork) -> list[Changed]:
    """The astronaut, towards eight donors who are unlike her, as far as a job goes."""
    image = photos.astronaut()
    found = CenterFaceDetector(load_engine(model_bytes("centerface")), side=640, score=0.5).detect([image])
    mesh = FaceMesh(load_engine(model_bytes("facemesh"))).fit([image], found)[0].points[0]
    dlib = Recognizer("dlib-resnet", load_engine(model_bytes("dlib-resnet")))
    person = network.identity(dlib.embed([image], [five_points(mesh)]))[0]
    unlike = np.flatnonzero((network.donors @ person < 0.2) & (network.female > 0.7))
    made = []
    for row in unlike[:: len(unlike) // 8][:8]:
        way, after = network.donors[row] - person, image.copy()
        network.render(image, mesh, way).paste(after)
        made.append(Changed(image, mesh, way, after))
    return made


def test_it_ships_small_with_many_donors_and_terms_that_must_be_accepted(network: FeatureTransferNetwork) -> None:
    assert len(network.data) < 6_000_000 and len(network.donors) == IDENTITIES
    assert network.about.needs_acceptance and "non-commercial" in network.about.terms
    assert 0.3 < (network.female >= 0.5).mean() < 0.7


@pytest.mark.parametrize("name", OUTSIDERS)
def test_recognizers_that_took_no_part_do_not_see_the_person(changed: list[Changed], name: str) -> None:
    recognizer = Recognizer(name, load_engine(model_bytes(name)))
    points = [five_points(one.mesh) for one in changed]
    before = recognizer.embed([one.before for one in changed], points)
    after = recognizer.embed([one.after for one in changed], points)
    similarity = (before * after).sum(axis=1)
    assert np.median(similarity) < THRESHOLDS[name], similarity


def test_the_photo_keeps_its_looks(changed: list[Changed]) -> None:
    """Outside the face nothing changes, and inside not much: blurring a face costs more."""
    for one in changed:
        different = (one.before != one.after).any(axis=2)
        y, x = np.nonzero(different)
        span = np.ptp(one.mesh[:, :2], axis=0)
        assert np.ptp(x) < 2 * span[0] and np.ptp(y) < 2 * span[1]
        error = (one.before[different].astype(float) - one.after[different]) ** 2
        assert 10 * np.log10(255**2 / error.mean()) > 18


def test_the_same_way_makes_the_same_px_and_another_way_others(
    network: FeatureTransferNetwork, changed: list[Changed]
) -> None:
    first, second = changed[:2]
    again = first.before.copy()
    network.render(again, first.mesh, first.way).paste(again)
    assert np.array_equal(again, first.after)
    assert not np.array_equal(second.after, first.after)
