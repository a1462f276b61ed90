"""Jobs that draw an identity for every person: what the plan decides, what is rendered, and what a release says."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from anonlib.config import JobConfig
from anonlib.errors import ConfigError
from anonlib.job import Job
from anonlib.privacy.keys import Keyring
from anonlib.stages.render_state import OutputRecheck
from anonlib.storage import open_storage
from anonlib.synthesis.base import IdentityDraw
from anonlib.synthesis.textures.ksame_net import NetworkDecoder
from anonlib.verification.release import verify
from anonlib.workspace.schemas import RELEASED
from tests.support.methods import method_named, method_with_files
from tests.support.runs import Run, manifest, planned_copy, rendered

Rows = list[dict[str, Any]]
METHODS: dict[str, dict[str, Any]] = {
    "dp-laplace": {"epsilon": 50},
    "dp-purkayastha": {"epsilon": 20},
    "sampling": {"own_angle": 60, "other_angle": 30},
    "surrogate": {"k": 3, "own_angle": 60},
}


def drawing(run: Run, root: Path, name: str, **changes: Any) -> JobConfig:
    """The job of `run` by another method, with its scan."""
    method = {"name": name, **METHODS.get(name, {}), **changes.pop("method", {})}
    return planned_copy(run, root, method=method, accept_licences=["ksame-net"], **changes)


def planned(config: JobConfig, pattern: str) -> Rows:
    return [row for path in sorted(Path(config.workspace.uri).glob(pattern)) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("name", ["dp-laplace", "sampling", "surrogate"])
def test_every_person_gets_one_identity_that_all_their_faces_show(finished: Run, tmp_path: Path, name: str) -> None:
    config = drawing(finished, tmp_path, name)
    job = Job(config)
    plan = job.make_plan()
    assert plan.classes == 0 and plan.blocks == ()
    folder = f"plan/{plan.key[:16]}"
    subjects = planned(config, f"{folder}/subjects.parquet")
    owner = {face: row for row in subjects for face in row["faces"]}
    drawn = {row["surrogate"]: row["draw"] for row in planned(config, f"{folder}/draws/*.parquet")}
    first: dict[str, set[str]] = {}
    for row in planned(config, f"{folder}/assignments/*.parquet"):
        if row["surrogates"]:
            subject = owner[row["face_id"]]
            assert row["surrogates"] == subject["surrogates"] and row["class_id"] is None
            first.setdefault(subject["person_id"], set()).add(row["surrogates"][0])
    assert len(first) == 12 and all(len(found) == 1 for found in first.values())
    method = method_with_files(config)
    stranger = Keyring(job.keyring.secret, "another salt")
    for digest, row in drawn.items():
        draw = IdentityDraw.of_row(row)
        assert np.linalg.norm(draw.vector) == pytest.approx(1, abs=1e-5)
        assert method.draw_name(draw, job.keyring) == digest != method.draw_name(draw, stranger)  # type: ignore[attr-defined]
    if name != "surrogate":
        assert len({next(iter(found)) for found in first.values()}) == 12


def test_a_draw_depends_on_workspace_release_and_secret_alone(finished: Run, tmp_path: Path) -> None:
    def drawn(root: str, salt: str | None = None, **changes: Any) -> set[bytes | str]:
        config = drawing(finished, tmp_path / root, "dp-uniform", **changes)
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


def test_the_release_shows_the_draws_and_names_the_networks_digest(one_shard: Run, tmp_path: Path) -> None:
    config = drawing(one_shard, tmp_path, "dp-purkayastha", method={"texture": "ksame-net"})
    assert Job(config).run().code == 0
    rows = manifest(Path(config.output.uri))
    faces = [face for row in rows for face in row["faces"] if face["method"] == "dp-purkayastha"]
    assert len(faces) >= 4 and all(face["surrogate_digest"] for face in faces)
    assert {face["epsilon"] for face in faces} == {20.0} and {face["k"] for face in faces} == {None}
    assert all(row["status"] == RELEASED for row in rows if row["faces"])
    claim = verify(open_storage(config.output.uri), None).certificate.claim
    assert claim.kind == "epsilon metric privacy of the identity channel"
    note = json.loads((Path(config.output.uri) / "run.json").read_text())
    digest = sha256(NetworkDecoder.shipped()).hexdigest()
    assert note["method"]["decoder"] == note["models"]["decoder"]["sha256"] == digest


def test_a_second_release_is_refused_over_budget(finished: Run, tmp_path: Path) -> None:
    # All of them have a label, so nobody is charged with a draw of another: 3 after the first release.
    ledger = {"uri": str(tmp_path / "ledger"), "budget": 5}

    def release(name: str) -> JobConfig:
        output = {"uri": str(tmp_path / name / "release"), "release": name}
        return drawing(finished, tmp_path / name, "dp-laplace", method={"epsilon": 3}, ledger=ledger, output=output)

    assert Job(release("one")).make_plan().persons == 12
    over = release("two")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"12 of the 12 accounts .* budget of epsilon 5 .* at 6, by 1;"):
            Job(over).make_plan()
    assert not list((Path(over.workspace.uri) / "plan").glob(f"{Job(over).plan_key[:16]}/commits/*"))


def test_a_sampled_face_that_comes_near_a_subject_gets_the_next_identity_and_in_the_end_none(
    one_shard: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OutputRecheck, "near_a_subject", lambda self, faces: list(faces))
    config = drawing(one_shard, tmp_path, "sampling")
    summary = Job(config).run()
    reasons = {row["reason"] for row in rendered(Path(config.output.uri))}
    assert summary.code == 0 and summary.fallbacks == summary.faces
    assert "every surrogate was tried, and the last came near somebody of the dataset" in reasons


def test_an_output_is_near_a_subject_within_the_methods_angle() -> None:
    method = method_named("sampling", other_angle=30)
    method.files["decoder"] = NetworkDecoder.shipped()
    network = NetworkDecoder.from_bytes(NetworkDecoder.shipped())
    subjects = network.bank.vectors[:3] + network.centre
    near = method.output_check(lambda: subjects)
    assert near is not None and near(subjects).all()
    away = -network.bank.vectors[:1] + network.centre
    angle = np.degrees(np.arccos((network.identity(away) @ network.identity(subjects).T).max()))
    assert near(away).tolist() == [angle < 30]
    assert method_named("surrogate").output_check(lambda: subjects) is None
