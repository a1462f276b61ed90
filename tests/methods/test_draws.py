"""Jobs that draw an identity for every person: what the plan decides, what is rendered, and what may be told of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from anonlib.config import JobConfig
from anonlib.errors import ConfigError
from anonlib.job import Job
from anonlib.methods.decoders import FaceDecoderSet, IdentityDraw
from anonlib.methods.planning import appearance
from anonlib.privacy.keys import Keyring
from anonlib.storage import open_storage
from anonlib.verification.release import verify
from anonlib.workspace.schemas import RELEASED
from tests.support.decoders import Fit
from tests.support.runs import Run, contents, manifest, planned_copy

Rows = list[dict[str, Any]]
METHODS: dict[str, dict[str, Any]] = {
    "dp-uniform": {},
    "dp-laplace": {"epsilon": 50},
    "dp-vmf": {"kappa": 20},
    "dp-purkayastha": {"epsilon": 20},
    "sampling": {"own_angle": 60, "other_angle": 30},
    "surrogate": {"k": 3, "own_angle": 60},
}


def drawing(run: Run, fitted: Fit, root: Path, name: str, **changes: Any) -> JobConfig:
    """The job of `run` by another method, with its scan."""
    method = {"name": name, "decoder": str(fitted.path), **METHODS.get(name, {}), **changes.pop("method", {})}
    return planned_copy(run, root, method=method, **changes)


def planned(config: JobConfig, pattern: str) -> Rows:
    return [row for path in sorted(Path(config.workspace.uri).glob(pattern)) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("name", METHODS)
def test_every_person_gets_one_identity_that_all_their_faces_wear(
    finished: Run, fitted: Fit, tmp_path: Path, name: str
) -> None:
    config = drawing(finished, fitted, tmp_path, name)
    job = Job(config)
    plan = job.make_plan()
    assert plan.classes == 0 and plan.blocks == ()
    room = f"plan/{plan.key[:16]}"
    subjects = planned(config, f"{room}/subjects.parquet")
    owner = {face: row for row in subjects for face in row["faces"]}
    drawn = {row["surrogate"]: row["draw"] for row in planned(config, f"{room}/draws/*.parquet")}
    worn: dict[str, set[str]] = {}
    for row in planned(config, f"{room}/assignments/*.parquet"):
        if row["method"] == name:
            subject = owner[row["face_id"]]
            assert row["surrogates"] == subject["surrogates"] and row["class_id"] is None
            worn.setdefault(subject["person_id"], set()).add(row["surrogates"][0])
    assert len(worn) == 12 and all(len(found) == 1 for found in worn.values())
    painter = FaceDecoderSet(fitted.path.read_bytes(), config.method)
    stranger = Keyring(job.keyring.secret, "another salt")
    for digest, draw in drawn.items():
        vector = np.array(draw["vector"], np.float32)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        again = IdentityDraw(vector, draw["female"], draw["age"], tuple(draw["rows"]), tuple(draw["weights"]))
        assert painter.digest(again, job.keyring) == digest != painter.digest(again, stranger)
    if name != "surrogate":
        assert len({next(iter(found)) for found in worn.values()}) == 12


def test_a_draw_is_tied_to_workspace_release_and_secret_and_to_nothing_else(
    finished: Run, fitted: Fit, tmp_path: Path
) -> None:
    def drawn(root: str, salt: str | None = None, **changes: Any) -> set[bytes | str]:
        config = drawing(finished, fitted, tmp_path / root, "dp-uniform", **changes)
        if salt is not None:
            (tmp_path / root / "workspace" / "salt").write_text(salt)
        Job(config).make_plan()
        rows = planned(config, "plan/*/draws/*.parquet")
        return {of for row in rows for of in (row["surrogate"], np.array(row["draw"]["vector"], "<f4").tobytes())}

    first = drawn("first")
    assert drawn("again") == first
    another = {"uri": str(tmp_path / "other" / "release"), "release": "another"}
    assert drawn("other", output=another).isdisjoint(first)
    assert drawn("elsewhere", salt="0" * 64).isdisjoint(first)


@pytest.mark.parametrize(
    ("name", "texture", "epsilon"), [("dp-purkayastha", "linear", 20.0), ("sampling", "bank", None)]
)
def test_the_release_wears_the_draws_and_its_certificate_holds(
    one_shard: Run, fitted: Fit, tmp_path: Path, name: str, texture: str, epsilon: float | None
) -> None:
    config = drawing(one_shard, fitted, tmp_path, name, method={"texture": texture})
    summary = Job(config).run()
    assert summary.code == 0
    rows = manifest(Path(config.output.uri))
    faces = [face for row in rows for face in row["faces"] if face["method"] == name]
    assert len(faces) >= 4
    assert {face["epsilon"] for face in faces} == {epsilon} and {face["k"] for face in faces} == {None}
    assert all(face["surrogate_digest"] for face in faces)
    assert all(row["status"] == RELEASED for row in rows if row["faces"])
    claim = verify(open_storage(config.output.uri), None).certificate.claim
    assert claim.kind == ("none" if epsilon is None else "epsilon metric privacy of the identity channel")
    note = json.loads((Path(config.output.uri) / "run.json").read_text())
    assert note["method"]["decoder"] == note["models"]["decoder"]["sha256"] == fitted.decoder.digest
    everything = b"".join(path.read_bytes() for path in Path(config.output.uri).rglob("*") if path.is_file())
    assert str(fitted.path.parent).encode() not in everything
    before = contents(Path(config.output.uri))
    Job(config).run()
    assert contents(Path(config.output.uri)) == before


def test_a_class_may_wear_the_face_of_its_decoded_centre(finished: Run, fitted: Fit, tmp_path: Path) -> None:
    config = drawing(finished, fitted, tmp_path, "k-diff", method={"k": 2, "texture": "linear"})
    averaged = finished.config.model_copy(update={"workspace": config.workspace, "output": config.output})
    job = Job(config)
    plan = job.make_plan()
    assert plan.classes >= 2 and Job(averaged).make_plan().classes >= 2
    rooms = [Path(config.workspace.uri) / "plan" / key[:16] for key in (plan.key, Job(averaged).plan_key)]
    textures = [{path.name: path.read_bytes() for path in (room / "surrogates").glob("*.npz")} for room in rooms]
    assert 0 < len(textures[0]) <= plan.classes
    assert all(textures[1].get(name) != data for name, data in textures[0].items())
    job.render(plan)
    verify(open_storage(config.output.uri), None)


def test_a_second_release_is_refused_over_budget_or_wears_the_first_ones_draws(
    finished: Run, fitted: Fit, tmp_path: Path
) -> None:
    # All of them have a label, so nobody is charged with a draw of another: 3 after the first release.
    ledger = {"uri": str(tmp_path / "ledger"), "budget": 5}

    def release(name: str, **method: Any) -> JobConfig:
        output = {"uri": str(tmp_path / name / "release"), "release": name}
        method = {"epsilon": 3, **method}
        return drawing(finished, fitted, tmp_path / name, "dp-laplace", method=method, ledger=ledger, output=output)

    def worn(config: JobConfig) -> dict[bytes, str]:
        Job(config).make_plan()
        rows = planned(config, "plan/*/draws/*.parquet")
        return {np.array(row["draw"]["vector"], "<f4").tobytes(): row["surrogate"] for row in rows}

    first = worn(release("one"))
    over = release("two")
    with pytest.raises(ConfigError, match=r"12 of the 12 accounts .* exceed the budget of epsilon 5 .* at 6, by 1;"):
        Job(over).make_plan()
    with pytest.raises(ConfigError):
        Job(over).make_plan()
    assert not list((Path(over.workspace.uri) / "plan").glob(f"{Job(over).plan_key[:16]}/commits/*"))
    again = worn(release("three", draw="reuse"))
    assert again.keys() == first.keys() and len(first) == 12
    assert set(again.values()).isdisjoint(first.values()), "the same faces, under names of this release"


def test_a_decoder_is_used_only_if_it_is_there_whole_and_its_terms_are_accepted(
    finished: Run, fitted: Fit, tmp_path: Path
) -> None:
    config = drawing(finished, fitted, tmp_path, "dp-uniform", method={"decoder": str(tmp_path / "none.npz")})
    with pytest.raises(ConfigError, match=r"none\.npz cannot be used"):
        Job(config)
    (tmp_path / "none.npz").write_bytes(fitted.path.read_bytes()[:-1000])
    with pytest.raises(ConfigError, match="damaged"):
        Job(config)


@pytest.mark.parametrize(
    ("method", "complaint"),
    [
        ({"name": "dp-vmf"}, "kappa belongs to dp-vmf"),
        ({"name": "dp-uniform"}, "anonlib fit-decoder"),
        ({"name": "dp-uniform", "epsilon": 3, "decoder": "d.npz"}, "epsilon belongs to"),
        ({"name": "sampling", "texture": "average", "decoder": "d.npz"}, "not average"),
        ({"name": "k-diff", "texture": "bank"}, "anonlib fit-decoder"),
    ],
)
def test_a_method_that_cannot_work_is_refused_in_a_sentence(method: dict[str, Any], complaint: str) -> None:
    places = {"input": {"uri": "in"}, "output": {"uri": "out"}, "workspace": {"uri": "ws"}}
    with pytest.raises(ValueError, match=complaint):
        JobConfig.model_validate(places | {"method": method})


def test_a_drawn_face_shows_the_band_of_its_person_and_no_more() -> None:
    assert appearance(("female", "age-0")) == (1.0, 27.0)
    assert appearance(("male", "age-2")) == (0.0, 60.0)
    assert appearance(("unsure", "age-1")) == (0.5, 42.0)
    assert appearance(()) == (0.5, 42.0)
