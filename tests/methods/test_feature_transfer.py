"""Jobs whose faces wear a donor's features: who lends to whom, what is refused, and what the release says of it."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonlib.config import JobConfig
from anonlib.errors import ConfigError
from anonlib.job import Job
from anonlib.methods import method_of
from anonlib.methods.base import MethodFile, Persons, Rendering, released_digest
from anonlib.methods.feature_transfer import NETWORK, STILL_RECOGNIZED, Embedding
from anonlib.privacy.keys import Keyring
from anonlib.storage import open_storage
from anonlib.synthesis import feature_transfer
from anonlib.synthesis.base import DecoderNotes, IdentityDraw
from anonlib.synthesis.network_file import metadata_of
from anonlib.verification.release import unproved, verify
from tests.support import photos
from tests.support.heads import heads
from tests.support.methods import method_named
from tests.support.packs import arcface, swapper
from tests.support.runs import Run, job, manifest, planned_copy, rendered

KEYS = Keyring(b"thirty-two bytes or more of a secret", "a release")
installed = pytest.mark.skipif(
    importlib.util.find_spec("insightface") is None, reason="insightface is not installed; it is an optional extra"
)


@pytest.fixture(scope="module")
def untrained() -> bytes:
    """A file of `embedding` whose network changes next to nothing, with 40 donors of either gender."""
    import torch

    from jobs.training.export import feature_transfer_onnx
    from jobs.training.feature_transfer_network import FeatureTransferNet

    random = np.random.default_rng(0)
    donors = random.standard_normal((40, 128)).astype(np.float32)
    columns = {
        "donors": donors / np.linalg.norm(donors, axis=1, keepdims=True),
        "female": np.arange(40, dtype=np.float32) % 2,
        "age": np.full(40, 30, np.float32),
    }
    about = DecoderNotes("drawn numbers", "for tests only", 40, False)
    notes = metadata_of(about, {"centre": np.zeros(128, np.float32)}, columns)
    torch.manual_seed(0)
    return feature_transfer_onnx(FeatureTransferNet(), notes)


def files_of(job: JobConfig) -> dict[str, MethodFile]:
    return method_of(job.method).read_files(job)


def embedding(root: Path, run: Run, **changes: Any) -> JobConfig:
    method = {"name": "embedding", "accept": STILL_RECOGNIZED, "own_angle": 40}
    return planned_copy(run, root, **({"method": method, "accept_licences": ["embedding"]} | changes))


@pytest.fixture(scope="module")
def swapping(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A user's files: a swapper, its recognizer and photos of six people."""
    folder = tmp_path_factory.mktemp("swapping")
    return {
        "name": "inswapper",
        "swapper": str(swapper(folder / "swapper.onnx")),
        "recognizer": str(arcface(folder / "arcface.onnx", "N")),
        "donors": str(heads(folder / "donors.tar", people=6)),
    }


def test_the_terms_of_the_photos_must_be_accepted(
    finished: Run, tmp_path: Path, untrained: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_transfer, "shipped", lambda: untrained)
    with pytest.raises(ConfigError, match=r"terms are: for tests only; .* add embedding to accept_licences"):
        files_of(embedding(tmp_path, finished, accept_licences=[]))


def of_untrained(data: bytes) -> Embedding:
    return Embedding(method_named("embedding", accept=STILL_RECOGNIZED).settings, {NETWORK: data})


def some_persons(method: Embedding, count: int = 20) -> Persons:
    strata = [(("male", "female")[number % 2], "age-0") for number in range(count)]
    ids = [f"subject-{number}" for number in range(count)]
    ones = np.ones(count, np.int64)
    vectors = method.gallery.vectors[:count]
    return Persons(np.arange(count), ids, [None] * count, vectors, strata, ones, ones.astype(bool))


def test_a_donor_is_unlike_the_person_of_the_same_gender_and_always_the_same(untrained: bytes) -> None:
    method = of_untrained(untrained)
    persons, gallery = some_persons(method), method.gallery

    def drawn(keys: Keyring) -> list[int]:
        draws = method.draws(persons, keys)
        for person, tries in zip(persons.template, draws, strict=True):
            assert {draw.weights for draw in tries} == {(1.0,)}, "the network learnt no longer ways"
            for draw in tries:
                way = gallery.vectors[draw.rows[0]] - person
                assert np.allclose(draw.vector, draw.weights[0] * way, atol=1e-6)
        assert any(len({draw.rows for draw in tries}) >= 3 for tries in draws), "one donor after another"
        return [tries[0].rows[0] for tries in draws]

    rows = drawn(KEYS)
    assert drawn(KEYS) == rows != drawn(Keyring(KEYS.secret, "another release"))
    assert all(row % 2 == number % 2 for number, row in enumerate(rows))
    apart = np.degrees(np.arccos((persons.template * gallery.vectors[rows]).sum(axis=1)))
    assert apart.min() >= method.settings.own_angle
    first = method.draws(persons, KEYS)[0][0]
    halfway = replace(first, vector=first.vector / 2)
    assert method.draw_name(halfway, KEYS) != method.draw_name(first, KEYS), (
        "people who share a donor do not share the way to it"
    )
    other = of_untrained(untrained.replace(b"for tests only", b"for texts only"))
    assert method.draw_name(first, KEYS) != other.draw_name(first, KEYS), "the digest names network and donors"


def test_photos_and_all_donors_do_not_tell_the_digest_of_any(untrained: bytes) -> None:
    """Without the drawing key every pair of person and donor can be tried, and none of them gives the digest."""
    method = of_untrained(untrained)
    person, row = method.gallery.vectors[3], 5
    draw = IdentityDraw(method.way(person, row), 0.5, 30.0, (row,), (1.0,))
    digest = method.draw_name(draw, KEYS)
    for guess in range(len(method.gallery.vectors)):
        way = np.asarray(method.way(person, guess), "<f4").tobytes()
        assert digest != hashlib.sha256(f"{method.file_digest} {guess} {1.0:g} ".encode() + way).hexdigest()
    assert digest != method.draw_name(draw, Keyring(KEYS.secret, "a guess"))


@installed
def test_a_swap_goes_all_the_way_and_its_certificate_holds(
    one_shard: Run, tmp_path: Path, swapping: dict[str, str]
) -> None:
    config = planned_copy(one_shard, tmp_path, method=swapping)
    job = Job(config)
    summary = job.run()
    assert summary.code == 0
    faces = [face for row in manifest(Path(config.output.uri)) for face in row["faces"]]
    worn = [face for face in faces if face["method"] == "inswapper"]
    assert len(worn) >= 6
    told = rendered(Path(config.output.uri))
    assert all(row["coverage"] > 0.85 and row["similarity"] for row in told if row["method"] == "inswapper")
    assert all(row["fallback"] == "fill" and row["reason"] for row in told if row["method"] == "fill")
    assert {face["k"] for face in worn} == {face["epsilon"] for face in worn} == {None}
    found = verify(open_storage(config.output.uri))
    assert found.certificate.claim.kind == "none" and found.certificate.tables
    assert any("that the donors agreed" in line for line in unproved(found))
    method = found.certificate.method
    for name in ("swapper", "recognizer", "donors"):
        assert method[name] == found.certificate.models[name]["sha256"], "a release names digests, not places"
    lender = method_of(config.method, {name: file.data for name, file in job.files.items()})
    lent = [IdentityDraw(face, 0.5, 30.0, (row,), (1.0,)) for row, face in enumerate(lender.gallery.vectors)]
    digests = {released_digest(job.keyring, lender.draw_name(draw, job.keyring)) for draw in lent}
    assert {face["surrogate_digest"] for face in worn} <= digests


@installed
@pytest.mark.parametrize(
    ("name", "file", "sentence"),
    [
        ("swapper", "no-such.onnx", r"the swapper .*no-such.* cannot be used: .*no such file"),
        ("recognizer", "swapper.onnx", r"the recognizer .* cannot be used: .*a swapping model"),
        ("donors", "nobody.tar", r"none of the 1 photos of the donors .* shows a face that can be lent"),
        ("donors", "no-such-folder", r"the donors .* cannot be read"),
    ],
)
def test_what_a_swap_cannot_use_is_refused_in_a_sentence(
    tmp_path: Path, swapping: dict[str, str], name: str, file: str, sentence: str
) -> None:
    folder = Path(swapping["swapper"]).parent
    photos.tar(folder / "nobody.tar", photos.members("nobody", photos.nobody(), {}))
    config = job(tmp_path / "in", tmp_path, method=swapping | {name: str(folder / file)})
    with pytest.raises(ConfigError, match=sentence):
        files_of(config)


def test_a_change_that_leaves_the_person_recognizable_is_covered(
    one_shard: Run, tmp_path: Path, untrained: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The untrained network changes next to nothing, so the re-check refuses all that it does."""
    monkeypatch.setattr(feature_transfer, "shipped", lambda: untrained)
    seen: list[str] = []
    applied = Rendering.apply
    monkeypatch.setattr(Rendering, "apply", lambda self, *of: seen.append(self.digest) or applied(self, *of))
    config = embedding(tmp_path, one_shard)
    assert Job(config).run().code == 0
    faces = [face for row in manifest(Path(config.output.uri)) for face in row["faces"]]
    assert {face["method"] for face in faces} == {"fill"} and len(seen) >= 6
    told = {row["reason"] for row in rendered(Path(config.output.uri))}
    assert "every surrogate was tried, and the last still matched the source" in told
