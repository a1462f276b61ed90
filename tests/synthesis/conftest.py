import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from anonlib.faces.centerface import CenterFaceDetector
from anonlib.faces.mesh import FaceMesh
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import load_engine


@pytest.fixture(scope="session")
def photo() -> NDArray[np.uint8]:
    """A real photograph: the astronaut of scikit-image (public domain)."""
    return np.asarray(data.astronaut())


@pytest.fixture(scope="session")
def mesh(photo: NDArray[np.uint8]) -> NDArray[np.float32]:
    faces = CenterFaceDetector(load_engine(model_bytes("centerface")), side=640, score=0.4).detect([photo])
    return FaceMesh(load_engine(model_bytes("facemesh"))).fit([photo], faces)[0].points[0]
