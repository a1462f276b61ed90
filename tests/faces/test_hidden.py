"""Text, persons and plates: boxes in px of the photo, and what is no network of that kind."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from anonlib.errors import ConfigError, ModelUnusable
from anonlib.faces.hidden import KINDS, PlateDetector, least_side, network_of, open_hidden, own_networks, seen_in
from anonlib.faces.regions import Regions, overlaps
from anonlib.models.cache import model_bytes
from anonlib.models.requirements import own_terms
from anonlib.models.runtime import ON_ONE_CORE
from tests.support import photos
from tests.support.packs import scrfd, yolo
from tests.support.runs import job


@pytest.mark.parametrize("layout", ["v8", "v5", "end"])
def test_a_plate_is_where_each_layout_of_yolo_says(layout: str, tmp_path: Path) -> None:
    network = yolo(tmp_path / "plates.onnx", layout).read_bytes()
    detector = PlateDetector.open(network, side=640, score=0.4, where=ON_ONE_CORE)
    street = np.full((320, 640, 3), 90, np.uint8)
    street[192:224, 320:352] = (255, 0, 0)
    found, larger, none = detector.detect([street, np.kron(street, np.ones((2, 2, 1), np.uint8)), street[:100]])
    assert found.boxes[0] == pytest.approx([309.6, 186, 362.4, 230], abs=0.01) and len(found) == 1
    assert larger.boxes[0] == pytest.approx(2 * found.boxes[0], abs=0.1)
    assert found.kinds == ("plate",) and len(none) == 0
    (shrunk,) = detector.detect([street], [(640, 1280)])
    assert shrunk.boxes[0] == pytest.approx(larger.boxes[0], abs=0.1)


@pytest.mark.parametrize("size", [(320, 640), (1920, 1600)])
def test_photos_are_decoded_at_the_size_that_the_users_network_sees(size: tuple[int, int], tmp_path: Path) -> None:
    network = yolo(tmp_path / "plates.onnx", size=size)
    settings = job("in", tmp_path, detector={"side": 320}, hide={"plate": {"method": "solid", "path": str(network)}})
    assert least_side(settings, open_hidden(settings, own_networks(settings))) == max(size)


@pytest.mark.parametrize(
    ("terms", "restricted"),
    [
        ({"licence": "Ultralytics " * 9 + "AGPL-3.0"}, "AGPL-3.0"),
        ({"license": "see below", "Licence": "GNU Affero\nGeneral Public License v3"}, "Affero General Public"),
        ({"license": "GNU General Public License v3.0"}, "General Public"),
        ({"license": "non commercial use only"}, "non commercial"),
        ({"license": "academic use only"}, "academic"),
        ({"license": "CC_BY_NC_4"}, "NC"),
        ({"license": "GNU Lesser General Public License v2.1"}, None),
        ({"license": "Apache-2.0"}, None),
    ],
)
def test_terms_that_bind_are_found_wherever_the_network_states_them(
    terms: dict[str, str], restricted: str | None, tmp_path: Path
) -> None:
    model = onnx.load(yolo(tmp_path / "plates.onnx"))
    onnx.helper.set_model_props(model, terms)
    data = model.SerializeToString()
    if restricted is None:
        assert own_terms("plate", data, ()) == terms["license"]
        return
    with pytest.raises(ConfigError, match=f"plate says in its metadata .*{restricted}"):
        own_terms("plate", data, ["scrfd"])
    assert len(own_terms("plate", data, ["plate"]) or "") in range(1, 81)


def test_a_network_of_another_kind_is_refused(tmp_path: Path) -> None:
    for data in (b"no network", scrfd(tmp_path / "det.onnx").read_bytes()):
        with pytest.raises(ModelUnusable, match=r"cannot be read as ONNX|no YOLO|does not answer"):
            PlateDetector.open(data, side=640, score=0.4, where=ON_ONE_CORE)


@pytest.mark.parametrize("scale", [1, 2])
def test_each_line_of_text_is_inside_its_box(scale: int) -> None:
    photo = np.full((300 * scale, 500 * scale, 3), 235, np.uint8)
    lines = {80: "Anna Quill", 200: "+44 20 7946 0018"}
    for y, line in lines.items():
        cv2.putText(
            photo, line, (40 * scale, y * scale), cv2.FONT_HERSHEY_SIMPLEX, 1.2 * scale, (20, 20, 20), 2 * scale
        )
    kind = KINDS["text"]
    detector = kind.detector.open(model_bytes(network_of("text")), side=kind.side, score=kind.score, where=ON_ONE_CORE)
    (found,) = detector.detect([photo])
    ink = (photo < 100).all(axis=2)
    assert 2 <= len(found) <= 5 and ink.sum() > 1000
    for x0, y0, x1, y1 in found.boxes.astype(int):
        ink[max(y0, 0) : y1 + 1, max(x0, 0) : x1 + 1] = False
    assert not ink.any()


def test_the_astronaut_is_one_person_and_an_empty_scene_is_none() -> None:
    kind = KINDS["person"]
    detector = kind.detector.open(
        model_bytes(network_of("person")), side=kind.side, score=kind.score, where=ON_ONE_CORE
    )
    person, nobody = detector.detect([photos.astronaut(), photos.nobody()])
    assert len(person) == 1 and len(nobody) == 0
    assert overlaps(person.boxes[0], np.array([[0, 0, 400, 512]], np.float32))[0] > 0.7


def test_a_region_is_found_again_where_most_of_it_lies_in_the_hidden_one() -> None:
    found = Regions.of_kind("text", np.array([[0, 0, 10, 10]], np.float32), np.ones(1, np.float32))
    for box, inside in (([4, 0, 20, 10], True), ([6, 0, 20, 10], False)):
        assert seen_in(np.array(box, np.float32), found) == inside
    assert not seen_in(np.array([0, 0, 9, 9], np.float32), found.rows(slice(0, 0)))
