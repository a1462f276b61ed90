import cv2
import numpy as np
from numpy.typing import NDArray

from anonlib.synthesis.canonical import canonical_frame, vertices_of
from anonlib.synthesis.glasses import STEP, features, glasses, readout
from anonlib.synthesis.textures.average import detail_of


def test_drawing_glasses_on_a_face_raises_its_score(photo: NDArray[np.uint8], mesh: NDArray[np.float32]) -> None:
    vertices = vertices_of(mesh)
    bare = glasses(detail_of(photo, vertices, STEP)[0])
    worn = photo.copy()
    for eye in ((33, 133), (362, 263)):
        centre, radius = mesh[list(eye), :2].mean(axis=0), 0.75 * np.linalg.norm(mesh[eye[0], :2] - mesh[eye[1], :2])
        cv2.circle(worn, tuple(np.rint(centre).astype(int).tolist()), int(radius), (20, 20, 25), 2)
    bridge = [tuple(np.rint(mesh[point, :2]).astype(int).tolist()) for point in (133, 362)]
    cv2.line(worn, bridge[0], bridge[1], (20, 20, 25), 2)
    assert bare < 0 < glasses(detail_of(worn, vertices, STEP)[0])
    assert glasses(detail_of(worn, vertices, STEP)[0]) > bare + 1


def test_the_readout_fits_its_features() -> None:
    size = canonical_frame().inside.shape[0] // STEP
    assert features(np.zeros((size, size, 3), np.float32)).shape == readout().weight.shape
