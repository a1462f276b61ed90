"""The people of an evaluation are dealt fairly: nobody wears himself, and nothing asked for rests on the gallery."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from anonlib.audit.generators.cast import COLUMNS as CAST_COLUMNS
from anonlib.audit.generators.cast import YAWS, Participants, assemble, usable
from anonlib.audit.generators.scanned import VIEW_PX, scan_faces, scanned_dataset, view_of
from anonlib.datasets import Dataset, open_dataset
from anonlib.errors import JobError
from anonlib.faces.mesh import MIN_PRESENCE
from anonlib.storage import open_storage
from anonlib.workspace.schemas import EXPRESSIONS, MESH_POINTS
from anonlib.workspace.tables import matrix
from tests.support.runs import Run


@pytest.fixture(scope="module")
def rows(finished: Run) -> pa.Table:
    return usable(scan_faces(open_storage(str(finished.workspace)), None, CAST_COLUMNS))


@pytest.fixture(scope="module")
def dataset(finished: Run) -> Dataset:
    return open_dataset(scanned_dataset(open_storage(str(finished.workspace))))


@pytest.fixture(scope="module")
def cast(rows: pa.Table, dataset: Dataset) -> Participants:
    return assemble(rows, dataset, people=8, strangers=100, seed=1)


def label_of(rows: pa.Table) -> dict[str, str]:
    return dict(zip(rows.column("face_id").to_pylist(), rows.column("label").to_pylist(), strict=True))


def test_only_labelled_faces_that_a_job_would_replace_take_part(rows: pa.Table) -> None:
    assert rows.num_rows > 12
    spoiled = rows.slice(0, 4).to_pylist()
    spoiled[0]["label"], spoiled[1]["presence"], spoiled[2]["yaw"] = None, MIN_PRESENCE - 0.1, -61.0
    table = pa.Table.from_pylist(spoiled, schema=rows.schema)
    assert usable(table).column("face_id").to_pylist() == [spoiled[3]["face_id"]]


def test_a_face_goes_into_two_other_people_of_the_same_gender(cast: Participants) -> None:
    own = np.arange(len(cast))
    female = np.array([look.female >= 0.5 for look in cast.looks])
    for host in (cast.first, cast.second):
        assert sorted(host) == own.tolist()
        assert (host != own).all()
        assert (female[host] == female).all()
    assert (cast.first != cast.second).all()


def test_the_gallery_photo_is_of_the_same_person_and_nothing_else_rests_on_it(
    cast: Participants, rows: pa.Table
) -> None:
    label, ids = label_of(rows), rows.column("face_id").to_pylist()
    embeddings = matrix(rows, "embedding")
    for number in range(len(cast)):
        scene, gallery = cast.scenes[number].face_id, cast.gallery[number].face_id
        assert scene != gallery
        assert label[scene] == label[gallery]
        assert gallery not in {row["face_id"] for row in cast.portraits[number]}
        # two photos each: what is left for the template is the scene
        np.testing.assert_allclose(cast.templates[number], embeddings[ids.index(scene)], atol=1e-5)
        assert cast.looks[number].age == pytest.approx(rows.column("age")[ids.index(scene)].as_py(), rel=1e-5)


def test_strangers_are_strangers(cast: Participants, rows: pa.Table) -> None:
    label = label_of(rows)
    taking_part = {label[photo.face_id] for photo in cast.scenes}
    assert cast.strangers
    assert not taking_part & {label[photo.face_id] for photo in cast.strangers}


def test_the_same_seed_draws_the_same_and_whoever_may_be_known_stays_out(rows: pa.Table, dataset: Dataset) -> None:
    label = label_of(rows)
    first, again, other = (assemble(rows, dataset, people=6, strangers=0, seed=seed) for seed in (1, 1, 2))
    named = [[label[photo.face_id] for photo in one.scenes] for one in (first, again, other)]
    assert named[0] == named[1] != named[2]
    without = frozenset(named[0][:2])
    left = assemble(rows, dataset, people=100, strangers=0, without=without, seed=1)
    assert not without & {label[photo.face_id] for photo in left.scenes}
    assert len(left) > 6


def test_the_stage_shows_every_expression_and_yaw(cast: Participants) -> None:
    for stage in cast.stages.values():
        assert (len(stage.expressions), len(stage.turns)) == (len(EXPRESSIONS), len(YAWS))
        yaws = [photo.yaw for photo in stage.turns]
        assert yaws[0] == min(yaws) and yaws[-1] == max(yaws)
        happy = EXPRESSIONS.index("happy")
        assert stage.expressions[happy].expression[happy] == max(one.expression[happy] for one in stage.expressions)


def test_too_few_people_and_another_dataset_are_refused(rows: pa.Table, dataset: Dataset) -> None:
    everybody = frozenset(rows.column("label").to_pylist())
    with pytest.raises(JobError, match="needs 3 people of one gender"):
        assemble(rows, dataset, people=8, strangers=0, without=everybody)
    strange = pa.Table.from_pylist([row | {"key": "x" + row["key"]} for row in rows.to_pylist()], schema=rows.schema)
    with pytest.raises(JobError, match="lacks 12 of the faces"):
        assemble(strange, dataset, people=8, strangers=0)


def test_a_view_keeps_the_face_where_it_is_and_large_photos_small() -> None:
    rgb = np.zeros((3000, 4000, 3), np.uint8)
    rgb[990:1010, 1190:1210] = 255
    box = [1000.0, 800.0, 1400.0, 1300.0]
    mesh = np.tile([1200.0, 1000.0, 10.0], (MESH_POINTS, 1))
    row = {"face_id": "s/k#0", "box": box, "mesh": mesh.ravel(), "expression": [0.0] * 7, "yaw": 0.0}
    photo = view_of(rgb, row)
    assert max(photo.rgb.shape[:2]) == VIEW_PX
    scale = (photo.box[2] - photo.box[0]) / 400
    assert (photo.mesh[0, :2] - photo.box[:2]) / scale == pytest.approx([200, 200], abs=0.1)
    assert photo.mesh[0, 2] == pytest.approx(10 * scale, rel=1e-3)
    x, y = np.rint(photo.mesh[0, :2]).astype(int)
    assert photo.rgb[y, x].min() > 200
    assert photo.rgb[y + 10, x].max() == photo.rgb[y, x - 10].max() == 0
    small = view_of(rgb[:250, :250], row | {"box": [70.0, 70.0, 170.0, 190.0]})
    assert small.rgb.shape == (250, 250, 3)
    np.testing.assert_array_equal(small.rgb, rgb[:250, :250])
