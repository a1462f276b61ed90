"""A plan in cells: everybody has one place, classes hide as they do in a whole plan, and a kill costs a unit."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from decoders import Fit
from runs import Run, contents, job
from scans import SCAN, DrawnScan, drawn_scan

from anonlib.audit.verify import verify
from anonlib.config import ConfigError, JobConfig, load_config
from anonlib.pipeline.cells import hiding, layout, stage
from anonlib.pipeline.cells.layout import Layout, cells_of, rooms_of
from anonlib.pipeline.cells.making import CellPlan
from anonlib.pipeline.decoding import DECODER
from anonlib.pipeline.desk import MakeStage
from anonlib.pipeline.job import Job
from anonlib.pipeline.outfits import MAYBE_SAME_PERSON
from anonlib.pipeline.places import open_places, scan_room
from anonlib.pipeline.plan import Plan
from anonlib.pipeline.runner import SerialRunner
from anonlib.pipeline.secret import open_keyring
from anonlib.pipeline.unit_log import Work
from anonlib.privacy.partition import faults
from anonlib.storage import open_storage

PEOPLE, PHOTOS, CELLS, K = 260, 4, 4, 3
KEY = "f" * 64
WORK = Work("plan", KEY, 1, "k-diff")
LABELLED = range(40)
Rows = list[dict[str, Any]]


class Killed(BaseException):
    """A worker that is no more."""


def config(root: Path, cells: int = CELLS, **method: Any) -> JobConfig:
    return job("in", root, plan={"cells": cells}, method={"name": "k-diff", "k": K} | method)


def plan(
    scan: DrawnScan, config: JobConfig, decoder: bytes | None = None, *, backwards: bool = False, kill_at: str = ""
) -> Plan:
    """Make the plan; `backwards`: the units of a step in another order, each by a stage of its own."""

    def rounds(make: MakeStage[str], units: Sequence[str], done: Any) -> None:
        todo = [unit for unit in units if unit not in done()]
        groups = [[unit] for unit in reversed(todo)] if backwards else [todo]
        for group in groups:
            for outcome in SerialRunner().run(make, group, WORK):
                assert outcome.error is None, outcome
                if outcome.unit == kill_at:
                    raise Killed

    places = open_places(config)
    models = {DECODER: decoder} if decoder else {}
    return CellPlan(
        config, places, SCAN, KEY, models, open_keyring(config, places).check(), config.plan.cells or 1, rounds
    ).run(scan.shards)


def rows(root: Path, pattern: str) -> Rows:
    return [row for path in sorted(root.glob(f"workspace/plan/{pattern}")) for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """A few hundred people fill several rooms, decks and blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "CLASSES_A_DECK", 20)
        patch.setattr(layout, "DONORS_A_ROOM", 5)
        patch.setattr(hiding, "BLOCK", 8)
        patch.setattr(stage, "HELD_BYTES", 1 << 19)
        yield


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> DrawnScan:
    """Four photos each of 260 people in 8 shards; of forty people two photos have a label."""
    return drawn_scan(tmp_path_factory.mktemp("drawn"), PEOPLE, PHOTOS, 8, LABELLED)


@pytest.fixture(scope="module")
def planned(scan: DrawnScan) -> DrawnScan:
    """The scan with its plan in four cells; look, do not touch."""
    plan(scan, config(scan.root))
    return scan


def again(scan: DrawnScan, root: Path) -> DrawnScan:
    shutil.copytree(scan.root / "workspace/scan", root / "workspace/scan")
    return DrawnScan(root, scan.shards, scan.person)


def test_every_face_has_one_subject_and_one_assignment(planned: DrawnScan) -> None:
    subjects = rows(planned.root, "*/subjects/*.parquet")
    assert sorted(face for one in subjects for face in one["faces"]) == sorted(planned.person)
    assert len({one["subject_id"] for one in subjects}) == len(subjects)
    for shard in planned.shards:
        scanned = pq.read_table(planned.root / f"workspace/scan/{SCAN[:16]}/faces/{shard}.parquet", columns=["face_id"])
        assert [row["face_id"] for row in rows(planned.root, f"*/assignments/{shard}.parquet")] == scanned[
            "face_id"
        ].to_pylist()


def test_a_person_is_one_subject_though_no_cell_saw_all_of_them(planned: DrawnScan) -> None:
    subjects = rows(planned.root, "*/subjects/*.parquet")
    owners = [Counter(planned.person[face] for face in one["faces"]) for one in subjects]
    assert all(len(owner) == 1 for owner in owners), "two people became one subject"
    assert len(subjects) <= PEOPLE + 2
    first_cut = planned.root.glob("workspace/plan/*/commits/cut-0/*.json")
    begun = sum(json.loads(path.read_text())["fragments"] for path in first_cut)
    assert begun > len(subjects) + 10, "the first cut parted nobody, so nothing was tested"


def test_faces_of_a_label_are_one_subject_and_its_other_photos_join_it(planned: DrawnScan) -> None:
    subjects = rows(planned.root, "*/subjects/*.parquet")
    labelled = [one for one in subjects if one["formed_by"] == "label"]
    assert len(labelled) == len(LABELLED)
    assert {planned.person[one["faces"][0]] for one in labelled} == set(LABELLED)
    assert sum(len(one["faces"]) for one in labelled) >= PHOTOS * len(LABELLED) - 2


def test_classes_hide_k_people_each_with_equal_weight(planned: DrawnScan) -> None:
    subjects, classes = rows(planned.root, "*/subjects/*.parquet"), rows(planned.root, "*/classes/*.parquet")
    donors = [one for one in subjects if one["donor"]]
    number = {one["subject_id"]: index for index, one in enumerate(donors)}
    members = [[number[one] for one in row["donors"]] for row in classes]
    templates = np.array([one["template"] for one in donors], np.float32)
    assert len(classes) > PEOPLE // (2 * K) - 5
    assert faults(members, len(donors), k=K, templates=templates, same_person=MAYBE_SAME_PERSON) == []
    for row in classes:
        assert row["k"] == len(row["members"]) and row["effective_k"] >= K
        assert len(row["portraits"]) == len(row["donors"]) and all(row["portraits"])
        assert set(row["donors"]) <= set(row["members"])


def test_everybody_hides_and_no_two_classes_wear_one_face(planned: DrawnScan) -> None:
    subjects, classes = rows(planned.root, "*/subjects/*.parquet"), rows(planned.root, "*/classes/*.parquet")
    home = {member: row["class_id"] for row in classes for member in row["members"]}
    assert {one["subject_id"]: one["class_id"] for one in subjects} == home
    worn = [row["surrogates"][0] for row in classes]
    assert sorted(worn) == sorted(row["class_id"] for row in classes)
    assert all(row["class_id"] not in row["surrogates"] for row in classes)
    rooms = json.loads(next(planned.root.glob("workspace/plan/*/cells/rooms.json")).read_text())
    assert rooms["decks"] > 1 and len(rooms["cells"]) > 1


def test_a_face_wears_what_its_class_was_dealt(planned: DrawnScan) -> None:
    dealt = {row["class_id"]: row for row in rows(planned.root, "*/classes/*.parquet")}
    of_face = {face: one for one in rows(planned.root, "*/subjects/*.parquet") for face in one["faces"]}
    for row in rows(planned.root, "*/assignments/*.parquet"):
        assert row["class_id"] == of_face[row["face_id"]]["class_id"]
        assert row["surrogates"] == dealt[row["class_id"]]["surrogates"] == of_face[row["face_id"]]["surrogates"]
        assert (row["method"], row["k"], row["reason"]) == ("k-diff", dealt[row["class_id"]]["k"], None)


def test_every_portrait_reaches_its_block(planned: DrawnScan) -> None:
    blocks = sorted(planned.root.glob("workspace/plan/*/classes/*.parquet"))
    assert len(blocks) > 4
    for path in blocks:
        wanted = {face for row in pq.read_table(path).to_pylist() for faces in row["portraits"] for face in faces}
        folder = path.parent.parent / "portraits/crops" / f"{int(path.stem):05d}"
        sent = [row for part in sorted(folder.glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
        assert sorted(row["face_id"] for row in sent) == sorted(wanted)
        assert all(row["crop"] == b"a crop" for row in sent)
    assert list(planned.root.glob("workspace/plan/*/portraits/crops/*/*-00001.parquet")), "all were sent at once"


def test_a_plan_killed_again_and_again_goes_on_and_ends_in_the_same_bytes(planned: DrawnScan, tmp_path: Path) -> None:
    here, job_file = again(planned, tmp_path), config(tmp_path)
    for lost in ("scatter/00001", "labels/00002", "cut-0/00000", "cut-5/00003", "deal/00001", "dress/00001"):
        with pytest.raises(Killed):
            plan(here, job_file, kill_at=lost)
        # Whoever died before the marker has left its parcels, and they are sent again.
        (tmp_path / f"workspace/plan/{KEY[:16]}/commits/{lost}.json").unlink()
    finished = plan(here, job_file, backwards=True)
    assert contents(tmp_path / "workspace/plan") == contents(planned.root / "workspace/plan")
    assert plan(here, job_file) == finished


def test_a_redaction_asks_nobody_who_is_who(scan: DrawnScan, tmp_path: Path) -> None:
    made = plan(again(scan, tmp_path), config(tmp_path, 2, name="solid"))
    assert (made.subjects, made.redacted) == (0, 0)
    assert {row["method"] for row in rows(tmp_path, "*/assignments/*.parquet")} == {"solid"}
    assert not list(tmp_path.glob("workspace/plan/*/subjects"))


@pytest.mark.parametrize("method", [{"name": "dp-uniform"}, {"name": "k-same", "texture": "linear"}])
def test_drawn_faces_come_with_their_draws(
    scan: DrawnScan, fitted: Fit, tmp_path: Path, method: dict[str, str]
) -> None:
    made = plan(
        again(scan, tmp_path), config(tmp_path, 2, decoder=str(fitted.path), **method), fitted.path.read_bytes()
    )
    assigned = rows(tmp_path, "*/assignments/*.parquet")
    assert all(row["surrogates"] for row in assigned) and made.redacted == 0
    if method["name"] == "dp-uniform":
        for shard in scan.shards:
            worn = {one for row in rows(tmp_path, f"*/assignments/{shard}.parquet") for one in row["surrogates"]}
            assert {row["surrogate"] for row in rows(tmp_path, f"*/draws/{shard}.parquet")} == worn
        assert made.classes == 0 and made.subjects == len({row["surrogates"][0] for row in assigned})
    else:
        classes = rows(tmp_path, "*/classes/*.parquet")
        assert all(row["surrogates"][0] == row["class_id"] and row["draw"] for row in classes)
        assert sum(len(row["members"]) for row in classes) == made.subjects


def test_with_too_few_people_all_are_redacted(tmp_path: Path) -> None:
    few = drawn_scan(tmp_path, 4, 2, 2)
    made = plan(few, config(tmp_path, k=5))
    assert (made.classes, made.redacted) == (0, 8)
    assert {row["reason"] for row in rows(tmp_path, "*/assignments/*.parquet")} == {
        "fewer than 5 subjects could hide together"
    }


def test_nobody_is_no_trouble(tmp_path: Path) -> None:
    assert plan(drawn_scan(tmp_path, 0, 1, 2), config(tmp_path)).subjects == 0


def test_a_batch_holds_about_a_cells_share() -> None:
    made = Layout.of(4, {f"s{one}": one % 3 for one in range(24)})
    assert [shard for batch in made.batches for shard in batch] == [f"s{one}" for one in range(24)]
    assert len(made.batches) == 4 and max(map(len, made.batches)) < 9


def test_cells_with_few_donors_share_a_room_with_the_nearest() -> None:
    means = np.array([[0.0], [1.0], [1.1], [9.0]], np.float32)
    assert rooms_of([500, 10, 500, 500], means, 3).cells == ((0,), (1, 2), (3,))
    assert rooms_of([1, 1, 1, 1], means, 3).cells == ((0, 1, 2, 3),)
    assert rooms_of([0, 0, 0, 4000], means, 4).decks == 1000 / layout.CLASSES_A_DECK


def test_the_number_of_faces_decides_unless_the_job_does(scan: DrawnScan, tmp_path: Path) -> None:
    room = scan_room(open_places(config(scan.root)), SCAN)
    assert cells_of(config(tmp_path), room, scan.shards) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "WHOLE_UP_TO", PEOPLE * PHOTOS - 1)
        patch.setattr(layout, "FACES_A_CELL", 500)
        assert cells_of(config(tmp_path), room, scan.shards) == 3
        assert cells_of(config(tmp_path, 1, name="sampling", texture="ksame-net"), room, scan.shards) == 1


def test_what_looks_at_everybody_at_once_is_refused_cells() -> None:
    places = {"input.uri": "a", "output.uri": "b", "workspace.uri": "c", "plan.cells": 2}
    with pytest.raises(ConfigError, match="look at everybody at once"):
        load_config(None, places | {"method.name": "sampling", "method.texture": "ksame-net"})
    with pytest.raises(ConfigError, match="look at everybody at once"):
        load_config(
            None, places | {"ledger.uri": "d", "secret.env": "S", "method.texture": "linear", "method.decoder": "x"}
        )


def test_one_cell_is_the_whole_plan(finished: Run, tmp_path: Path) -> None:
    alone = job(finished.input, tmp_path, plan={"cells": 1})
    assert Job(finished.config).plan_key == Job(finished.config.model_copy(update={"plan": alone.plan})).plan_key


def test_a_release_planned_in_cells_is_certified_and_verified(finished: Run, tmp_path: Path) -> None:
    config = job(finished.input, tmp_path, plan={"cells": 2})
    shutil.copytree(finished.workspace / "scan", tmp_path / "workspace/scan")
    summary = Job(config).run()
    assert (summary.released, summary.faces) == (finished.summary.released, finished.summary.faces)
    assert summary.fallbacks <= finished.summary.fallbacks + 2
    verified = verify(open_storage(str(tmp_path / "release")))
    assert verified.certificate.claim.kind == "k-anonymity of the identity channel"
    assert Job(config).plan_key != Job(finished.config).plan_key
