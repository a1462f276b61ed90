"""Labels of a release: other tools read them, and they say what the manifest says."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anonlib.errors import ConfigError, StorageError
from anonlib.storage import open_storage
from anonlib.verification.export import TARGETS, export
from tests.support import photos
from tests.support.runs import Run, by_key, run_job

pytestmark = pytest.mark.job
SIZE = (512, 512)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three photos in two folders: of the astronaut with a second box, of nobody, and of nothing readable."""
    root = tmp_path_factory.mktemp("exported")
    source = root / "input"
    for name in ("a", "b"):
        (source / name).mkdir(parents=True)
    (source / "a" / "face.png").write_bytes(photos.encoded(photos.astronaut(), "PNG"))
    (source / "a" / "face.json").write_text(json.dumps({"boxes": [[480, 10, 540, 60]]}))
    (source / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (source / "b" / "nobody.png").write_bytes(photos.encoded(photos.nobody(), "PNG"))
    return run_job(source, root, method={"name": "solid"}, input={"uri": str(source), "boxes_field": "boxes"})


def written(release: Run, target: str, place: Path) -> Counter[str]:
    return export(open_storage(str(release.output)), open_storage(str(place)), target)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_reads_boxes_and_masks_of_the_faces(release: Run, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    assert written(release, "coco", tmp_path) == {"images": 2, "faces": 2, "left_out": 1}
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "instances.json"))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["a/face.png", "b/nobody.png"]
    first, second = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    x0, y0, x1, y1 = by_key(release.output)["a/face.png"]["faces"][0]["box"]
    assert first["bbox"] == [x0, y0, x1 - x0, y1 - y0] and second["bbox"] == [480, 10, 32, 50]
    assert coco.loadCats(first["category_id"])[0]["name"] == first["attributes"]["method"] == "solid"
    hidden = (photos.decoded((release.output / "data/a/face.png").read_bytes()) == 127).all(axis=2)
    mask = coco.annToMask(first) > 0
    assert (mask & hidden).sum() > 0.95 * mask.sum()


def test_yolo_labels_are_shares_of_the_image_beside_its_name(release: Run, tmp_path: Path) -> None:
    written(release, "yolo", tmp_path)
    lines = [line.split() for line in (tmp_path / "labels/a/face.txt").read_text().splitlines()]
    assert lines[1] == ["0", "0.968750", "0.068359", "0.062500", "0.097656"]
    assert (tmp_path / "labels/b/nobody.txt").read_text() == "" and not (tmp_path / "labels/a/broken.txt").exists()
    assert (tmp_path / "data.yaml").read_text() == 'names: {"0": "solid"}\n'


def test_a_mask_has_the_ellipses_that_were_filled(release: Run, tmp_path: Path) -> None:
    written(release, "masks", tmp_path)
    mask = np.asarray(Image.open(tmp_path / "masks/a/face.png.png"))
    hidden = (photos.decoded((release.output / "data/a/face.png").read_bytes()) == 127).all(axis=2)
    assert mask.shape == SIZE and set(np.unique(mask)) == {0, 1, 2}
    assert ((mask == 1) & hidden).sum() > 0.98 * (mask == 1).sum()
    assert ((mask > 0) | ~hidden).mean() > 0.998
    assert not np.asarray(Image.open(tmp_path / "masks/b/nobody.png.png")).any()


def test_a_csv_has_a_row_a_face_and_every_image(release: Run, tmp_path: Path) -> None:
    written(release, "csv", tmp_path)
    rows = list(csv.DictReader((tmp_path / "faces.csv").read_text().splitlines()))
    assert [(row["key"], row["face"], row["status"]) for row in rows] == [
        ("a/broken.jpg", None, "quarantined"),
        ("a/face.png", "1", "released"),
        ("a/face.png", "2", "released"),
        ("b/nobody.png", None, "no_face"),
    ]
    assert (rows[0]["reason"], rows[1]["method"], rows[1]["k"]) == ("not-an-image", "solid", "")


@pytest.mark.parametrize("target", TARGETS)
def test_a_release_of_an_earlier_version_is_exported_too(target: str, tmp_path: Path) -> None:
    with tarfile.open(Path(__file__).with_name("release-0.1.0.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    done = export(open_storage(str(tmp_path / "release")), open_storage(str(tmp_path / "out")), target)
    assert done["faces"] > 0 and any((tmp_path / "out").rglob("*.*"))


def test_nothing_is_overwritten_and_no_other_target_is_known(release: Run, tmp_path: Path) -> None:
    (tmp_path / "faces.csv").write_text("mine")
    with pytest.raises(StorageError, match="holds other bytes"):
        written(release, "csv", tmp_path)
    with pytest.raises(ConfigError, match=r"no export to 'yolov8'; did you mean"):
        written(release, "yolov8", tmp_path)
