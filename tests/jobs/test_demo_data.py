"""The demo dataset: labels that hold, shards that open, bytes that repeat."""

import importlib
import io
import json
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from anonlib.errors import ModelMissing
from anonlib.models.cache import model_bytes

Sample = tuple[str, bytes, dict[str, Any]]

sys.path.append(str(Path(__file__).parents[2] / "jobs"))
demo_data = importlib.import_module("demo_data")
SMALL = {"people": 4, "photos_per_person": 2, "groups": 2, "empty": 2, "shards": 3}


def shaded_ovals(latents: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A generator that needs no weights: an oval whose colour is the latent's."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    oval = (x**2 / 0.5 + y**2 / 0.8 < 1)[None, :, :, None]
    colour = 128 + 50 * np.tanh(latents.reshape(len(latents), -1)[:, None, None, :3])
    return np.where(oval, colour, 60).astype(np.uint8)


def samples_of(shards: list[Path]) -> Iterator[Sample]:
    for path in shards:
        with tarfile.open(path) as tar:
            found: dict[str, dict[str, bytes]] = {}
            for member in tar:
                stem, _, suffix = member.name.partition(".")
                content = tar.extractfile(member)
                assert content is not None
                found.setdefault(stem, {})[suffix] = content.read()
        for key, files in found.items():
            yield key, files["jpg"], json.loads(files["json"])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    made: list[Path] = demo_data.make_dataset(shaded_ovals, tmp_path_factory.mktemp("demo"), **SMALL)
    return made


def test_two_runs_give_the_same_bytes(shards: list[Path], tmp_path: Path) -> None:
    again = demo_data.make_dataset(shaded_ovals, tmp_path, **SMALL)
    assert [path.name for path in again] == ["demo-000.tar", "demo-001.tar", "demo-002.tar"]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in shards]


def test_another_seed_gives_other_photos(shards: list[Path], tmp_path: Path) -> None:
    other = demo_data.make_dataset(shaded_ovals, tmp_path, **SMALL, seed=1)
    assert {jpeg for _, jpeg, _ in samples_of(other)} & {jpeg for _, jpeg, _ in samples_of(shards)} == set(
        _astronaut_of(shards)
    )


def _astronaut_of(shards: list[Path]) -> list[bytes]:
    return [jpeg for _, jpeg, fields in samples_of(shards) if fields.get("person") == "astronaut"]


def test_every_shard_opens_and_its_members_carry_no_time_and_no_owner(shards: list[Path]) -> None:
    for path in shards:
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        assert members
        assert {(info.mtime, info.uid, info.gid, info.uname, info.mode) for info in members} == {(0, 0, 0, "", 0o644)}


def test_every_key_has_one_photo_and_one_sidecar(shards: list[Path]) -> None:
    keys = [key for key, _, _ in samples_of(shards)]
    assert len(keys) == len(set(keys)) == 4 * 2 + 2 + 2 + 1


def test_each_person_is_labelled_as_often_as_photographed_and_the_astronaut_once(shards: list[Path]) -> None:
    labels = Counter(fields["person"] for _, _, fields in samples_of(shards) if fields.get("person"))
    assert labels == {"p000": 2, "p001": 2, "p002": 2, "p003": 2, "astronaut": 1}


def test_a_group_names_its_people_and_has_no_person(shards: list[Path]) -> None:
    groups = [fields for _, _, fields in samples_of(shards) if "people" in fields]
    assert sorted(len(fields["people"]) for fields in groups) == [2, 3]
    for fields in groups:
        assert fields["person"] is None
        assert len(set(fields["people"])) == len(fields["people"])


def test_a_photo_of_nobody_has_no_label(shards: list[Path]) -> None:
    nobody = [fields for _, _, fields in samples_of(shards) if "person" not in fields]
    assert len(nobody) == 2
    assert all(fields["caption"].startswith("Nobody") for fields in nobody)


def test_no_caption_names_a_person(shards: list[Path]) -> None:
    assert not any("p00" in fields["caption"] for _, _, fields in samples_of(shards))


def test_photos_are_jpegs_that_carry_a_position(shards: list[Path]) -> None:
    sizes = {*demo_data.SIZES, demo_data.GROUP_SIZE, (512, 512)}
    for _, jpeg, _ in samples_of(shards):
        with Image.open(io.BytesIO(jpeg)) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert image.size in sizes
            assert image.getexif().get_ifd(0x8825)


def test_the_first_people_are_men_and_women_in_equal_number() -> None:
    for count in (2, 10, len(demo_data.PEOPLE)):
        assert Counter(person.looks for person in demo_data.PEOPLE[:count]) == {"w": count // 2, "m": count // 2}


def test_every_person_is_another_one_with_a_whole_outline() -> None:
    assert len({person.seed for person in demo_data.PEOPLE}) == len(demo_data.PEOPLE) >= 40
    for person in demo_data.PEOPLE:
        points = person.points()
        assert points.shape == (40, 2)
        assert np.all(np.hypot(*(points - (32, 34)).T) > 15)  # half a jaw


def test_the_curated_seeds_still_draw_the_latents_they_were_chosen_for() -> None:
    first = demo_data.PEOPLE[0].latent()
    assert first.shape == (demo_data.LATENT,)
    np.testing.assert_allclose(first[:3], (-1.6771, 0.8292, 1.352), atol=1e-4)


def test_a_mirrored_head_is_the_head_mirrored() -> None:
    face = shaded_ovals(np.ones((1, 100, 1, 1), np.float32))[0]
    head, matte = demo_data.cut_out(demo_data.PEOPLE[0], face, False)
    mirrored, mirrored_matte = demo_data.cut_out(demo_data.PEOPLE[0], face, True)
    np.testing.assert_array_equal(head[:, ::-1], mirrored)
    np.testing.assert_array_equal(matte[:, ::-1], mirrored_matte)


def test_asking_for_more_people_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Ask for 1 to"):
        demo_data.make_dataset(shaded_ovals, tmp_path, people=1000)


def test_a_group_of_too_few_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="groups=0"):
        demo_data.make_dataset(shaded_ovals, tmp_path, people=2)


def test_an_unknown_scene_is_refused() -> None:
    with pytest.raises(ValueError, match="there are park"):
        demo_data.draw_scene(64, 48, "moon", np.random.default_rng(0))


def test_the_real_generator_makes_photos_with_one_face_a_person(tmp_path: Path) -> None:
    from anonlib.faces.centerface import CenterFaceDetector
    from anonlib.models.runtime import load_engine

    try:
        weights, detector_weights = model_bytes("face-gan"), model_bytes("centerface")
    except ModelMissing as missing:
        pytest.skip(str(missing))
    generator = demo_data.generator_from_onnx(weights)
    made = demo_data.make_dataset(generator, tmp_path, people=6, photos_per_person=2, groups=2, empty=6, shards=1)
    detector = CenterFaceDetector(load_engine(detector_weights, device="cpu"), side=640, score=0.5)
    for key, jpeg, fields in samples_of(made):
        faces = detector.detect([np.asarray(Image.open(io.BytesIO(jpeg)))])[0]
        expected = len(fields["people"]) if "people" in fields else int("person" in fields)
        assert len(faces) == expected, (key, fields)
        if expected == 1:
            assert 80 <= faces.boxes[0, 2] - faces.boxes[0, 0] <= 160
