"""Surrogates are averages of several people, stored once, and damage to one is noticed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from anonlib.job import Job
from anonlib.methods.base import released_digest
from anonlib.synthesis.textures.average import Texture
from tests.support.runs import Run, contents, manifest


def test_every_surrogate_is_the_one_that_its_marker_vouches_for(finished: Run) -> None:
    markers = list(finished.workspace.glob("plan/*/commits/surrogates/*.json"))
    assert markers
    for path in markers:
        digests = json.loads(path.read_text())["digests"]
        found = contents(path.parents[2] / "surrogates")
        assert digests and all(found[f"{class_id}.npz"] == digest for class_id, digest in digests.items())


def test_the_manifest_names_surrogates_by_keyed_digest_alone(finished: Run) -> None:
    """A plain hash would let anybody with the photos test whether a guessed average is the one."""
    stored = {digest for folder in finished.workspace.glob("plan/*/surrogates") for digest in contents(folder).values()}
    shown = {face["surrogate_digest"] for row in manifest(finished.output) for face in row["faces"]} - {None}
    keyring = Job(finished.config).keyring
    assert shown and shown <= {released_digest(keyring, digest) for digest in stored}
    assert not shown & stored


def test_a_surrogate_comes_back_as_it_was_stored(finished: Run) -> None:
    path = sorted(finished.workspace.glob("plan/*/surrogates/*.npz"))[0]
    texture = Texture.from_bytes(path.read_bytes())
    assert texture.to_bytes() == path.read_bytes()
    assert np.isfinite(texture.detail).all() and np.isfinite(texture.shape).all()


@pytest.mark.parametrize("damage", [lambda d: b"", lambda d: d[:-100], lambda d: b"text", lambda d: d[:400] + d[500:]])
def test_damage_is_a_sentence(finished: Run, damage: object) -> None:
    data = sorted(finished.workspace.glob("plan/*/surrogates/*.npz"))[0].read_bytes()
    assert callable(damage)
    with pytest.raises(ValueError, match="a surrogate in the workspace is damaged"):
        Texture.from_bytes(damage(data))
