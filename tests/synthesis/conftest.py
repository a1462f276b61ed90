import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.faces.centerface import CenterFaceDetector
from anonlib.faces.mesh import FaceMesh
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import load_engine
from tests.support import photos


@pytest.fixture(scope="session")
def photo() -> photos.Pixels:
    """A real photograph: the astronaut of scikit-image (public domain)."""
    return photos.astronaut()


@pytest.fixture(scope="session")
def mesh(photo: photos.Pixels) -> NDArray[np.float32]:
    faces = CenterFaceDetector(load_engine(model_bytes("centerface")), side=640, score=0.4).detect([photo])
    return FaceMesh(load_engine(model_bytes("facemesh"))).fit([photo], faces)[0].points[0]
