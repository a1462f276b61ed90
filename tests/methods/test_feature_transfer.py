"""Jobs whose faces wear a donor's features: who lends to whom, what is refused, and what the release says of it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonlib.config import JobConfig
from anonlib.errors import ConfigError
from anonlib.job import Job
from anonlib.methods import method_of
from anonlib.methods.base import Persons, Rendering
from anonlib.methods.feature_transfer import NETWORK, STILL_RECOGNIZED, Embedding
from anonlib.privacy.keys import Keyring
from anonlib.synthesis import feature_transfer
from anonlib.synthesis.base import DecoderNotes, IdentityDraw
from anonlib.synthesis.network_file import metadata_of
from tests.support.methods import method_named
from tests.support.runs import Run, manifest, planned_copy, rendered

KEYS = Keyring(b"thirty-two bytes or more of a secret", "a release")


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


def embedding(root: Path, run: Run, **changes: Any) -> JobConfig:
    method = {"name": "embedding", "accept": STILL_RECOGNIZED, "own_angle": 40}
    return planned_copy(run, root, **({"method": method, "accept_licences": ["embedding"]} | changes))


def test_the_terms_of_the_photos_must_be_accepted(
    finished: Run, tmp_path: Path, untrained: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_transfer, "shipped", lambda: untrained)
    with pytest.raises(ConfigError, match=r"terms are: for tests only; .* add embedding to accept_licences"):
        job = embedding(tmp_path, finished, accept_licences=[])
        method_of(job.method).read_files(job)


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
        assert digest != hashlib.sha256(f"{method.network.digest} {guess} {1.0:g} ".encode() + way).hexdigest()
    assert digest != method.draw_name(draw, Keyring(KEYS.secret, "a guess"))


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
