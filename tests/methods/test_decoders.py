"""Which decoder a job gets, under which terms, and jobs that wear faces of the shipped network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonlib.config import JobConfig, RayConfig
from anonlib.errors import ConfigError
from anonlib.job import Job
from anonlib.methods.decoders import DECODER, SHIPPED, FaceDecoderSet, face_decoders_of, open_decoder, read_decoder
from anonlib.stages.surrogates import from_bytes
from anonlib.storage import open_storage
from anonlib.synthesis.textures.ksame_net import MOODS, MoodTexture, NetworkDecoder, shipped
from anonlib.synthesis.textures.linear import Decoder
from anonlib.verification.release import verify
from anonlib.workspace.schemas import RELEASED
from tests.support.decoders import Fit
from tests.support.runs import Run, manifest, planned_copy

PLACES = {"input": {"uri": "in"}, "output": {"uri": "out"}, "workspace": {"uri": "ws"}}


def job(*accepted: str, **method: Any) -> JobConfig:
    return JobConfig.model_validate({**PLACES, "method": {"name": "dp-uniform", **method}, "accept_licences": accepted})


def wearing(run: Run, root: Path, **method: Any) -> JobConfig:
    return planned_copy(run, root, method={"texture": SHIPPED, **method}, accept_licences=[SHIPPED])


def test_the_shipped_network_is_used_only_where_its_terms_are_accepted() -> None:
    with pytest.raises(ConfigError, match=r"non-commercial.*add ksame-net to accept_licences.*average.*fit-decoder"):
        read_decoder(job(texture=SHIPPED))
    with pytest.raises(ConfigError, match="add ksame-net"):
        read_decoder(job("decoder", texture=SHIPPED))
    assert read_decoder(job(SHIPPED, texture=SHIPPED)) == shipped()


def test_a_file_that_is_not_of_the_texture_is_refused(fitted: Fit, tmp_path: Path) -> None:
    (tmp_path / "own.onnx").write_bytes(shipped())
    with pytest.raises(ConfigError, match=r"is a network, whose texture is ksame-net; method\.texture is linear"):
        read_decoder(job("decoder", decoder=str(tmp_path / "own.onnx"), texture="linear"))
    with pytest.raises(ConfigError, match="is no network"):
        read_decoder(job(decoder=str(fitted.path), texture=SHIPPED))
    with pytest.raises(ConfigError, match="add decoder to accept_licences"):
        read_decoder(job(SHIPPED, decoder=str(tmp_path / "own.onnx"), texture=SHIPPED))


def test_a_file_is_opened_as_what_it_is(fitted: Fit) -> None:
    assert isinstance(open_decoder(fitted.path.read_bytes()), Decoder)
    assert isinstance(open_decoder(shipped()), NetworkDecoder)


def test_the_shipped_network_fits_in_the_repository_and_knows_its_card() -> None:
    import anonlib.synthesis as home

    data = shipped()
    assert len(data) < 30_000_000
    card = (Path(home.__path__[0]) / "shipped/ksame-net.md").read_text()
    assert open_decoder(data).digest in card
    assert open_decoder(data).about.terms in card


def test_no_person_of_the_training_set_is_in_the_shipped_bank() -> None:
    bank = open_decoder(shipped()).bank
    likeness = bank.vectors @ bank.vectors.T
    assert np.median(likeness[~np.eye(len(likeness), dtype=bool)]) < 0.1
    assert np.allclose(np.linalg.norm(bank.vectors, axis=1), 1, atol=1e-5)
    assert {0.0, 1.0} == set(bank.female.tolist()) and 18 <= bank.age.min() < 25 < 60 < bank.age.max() <= 80


def test_every_person_wears_one_face_of_the_network(one_shard: Run, tmp_path: Path) -> None:
    config = wearing(one_shard, tmp_path, name="dp-uniform")
    assert Job(config).run().code == 0
    rows = manifest(Path(config.output.uri))
    faces = [face for row in rows for face in row["faces"] if face["method"] == "dp-uniform"]
    assert len(faces) >= 4 and len({face["surrogate_digest"] for face in faces}) <= 12
    assert all(row["status"] == RELEASED for row in rows if row["faces"])
    verify(open_storage(config.output.uri), None)
    note = json.loads((Path(config.output.uri) / "run.json").read_text())
    network = open_decoder(shipped())
    assert note["models"]["decoder"] == {"sha256": network.digest, "licence": network.about.terms}


def test_a_class_keeps_all_moods_of_its_face(one_shard: Run, tmp_path: Path) -> None:
    config = wearing(one_shard, tmp_path, name="k-diff", k=2)
    job = Job(config)
    plan = job.make_plan()
    room = Path(config.workspace.uri) / "plan" / plan.key[:16]
    painter = FaceDecoderSet(shipped(), config.method)
    files = sorted((room / "surrogates").glob("*.npz"))
    assert 0 < len(files) <= plan.classes and plan.classes >= 2
    texture = from_bytes(files[0].read_bytes())
    assert isinstance(texture, MoodTexture)
    smiling, neutral = texture.of((True, MOODS[0][1])), texture.of(MOODS[0])
    assert np.abs(smiling - neutral).max() > 0.05
    assert isinstance(painter.decoder, NetworkDecoder)
    job.render(plan)
    verify(open_storage(config.output.uri), None)


def test_surrogate_and_sampling_find_identities_in_the_shipped_bank(finished: Run, tmp_path: Path) -> None:
    for name in ("sampling", "surrogate"):
        plan = Job(wearing(finished, tmp_path / name, name=name, own_angle=60)).make_plan()
        assert plan.classes == 0


@pytest.mark.parametrize(("gpus", "device"), [(0.0, "cpu"), (0.5, "cuda")])
def test_faces_are_drawn_where_the_actors_other_networks_run(finished: Run, gpus: float, device: str) -> None:
    job = finished.config.model_copy(update={"ray": RayConfig(num_gpus=gpus)})
    painter = face_decoders_of({DECODER: shipped()}, job)
    assert painter is not None and isinstance(painter.decoder, NetworkDecoder)
    assert painter.decoder.device == device
