"""The network that ships: what recognizers that took no part in it still read, and what a viewer still sees."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.faces.embed import THRESHOLDS, Recognizer
from anonlib.faces.mesh import five_points
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import load_engine
from anonlib.synthesis.feature_transfer import FeatureTransferNetwork, shipped
from jobs.training.export import IDENTITIES
from tests.support.photos import Pixels

Mesh = NDArray[np.float32]


@pytest.fixture(scope="module")
def network() -> FeatureTransferNetwork:
    return FeatureTransferNetwork.from_bytes(shipped())


def put(network: FeatureTransferNetwork, photo: Pixels, mesh: Mesh, way: Mesh) -> Pixels:
    out = photo.copy()
    network.render(photo, mesh, way).paste(out)
    return out


@pytest.fixture(scope="module")
def changed(network: FeatureTransferNetwork, photo: Pixels, mesh: Mesh) -> dict[int, tuple[Mesh, Pixels]]:
    """By donor the way to it and the astronaut towards it: eight who are unlike her, as far as a job goes."""
    dlib = Recognizer("dlib-resnet", load_engine(model_bytes("dlib-resnet")))
    person = network.identity(dlib.embed([photo], [five_points(mesh)]))[0]
    unlike = np.flatnonzero((network.donors @ person < 0.2) & (network.female > 0.7))
    ways = {int(row): network.donors[row] - person for row in unlike[:: len(unlike) // 8][:8]}
    return {row: (way, put(network, photo, mesh, way)) for row, way in ways.items()}


def test_it_ships_small_with_many_donors_and_terms_that_must_be_accepted(network: FeatureTransferNetwork) -> None:
    assert len(network.data) < 6_000_000 and len(network.donors) == IDENTITIES
    assert not network.about.commercial and "non-commercial" in network.about.terms
    assert 0.3 < (network.female >= 0.5).mean() < 0.7


@pytest.mark.parametrize("name", ["fr-feature", "faceres"])
def test_recognizers_that_took_no_part_do_not_see_the_person(photo: Pixels, mesh: Mesh, changed, name: str) -> None:
    recognizer, points = Recognizer(name, load_engine(model_bytes(name))), five_points(mesh)
    before = recognizer.embed([photo], [points])[0]
    similarity = recognizer.embed([out for _, out in changed.values()], [points] * len(changed)) @ before
    assert np.median(similarity) < THRESHOLDS[name], similarity


def test_the_photo_keeps_its_looks(photo: Pixels, mesh: Mesh, changed) -> None:
    """Outside the face nothing changes, and inside not much: blurring a face costs more."""
    for _, out in changed.values():
        different = (photo != out).any(axis=2)
        y, x = np.nonzero(different)
        span = np.ptp(mesh[:, :2], axis=0)
        assert np.ptp(x) < 2 * span[0] and np.ptp(y) < 2 * span[1]
        error = (photo[different].astype(float) - out[different]) ** 2
        assert 10 * np.log10(255**2 / error.mean()) > 18
