"""A job's method is refused in a sentence where it cannot work, and every method says what it claims and used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from anonlib.config import JobConfig
from anonlib.errors import ConfigError
from anonlib.methods import METHODS, method_of, models_of
from anonlib.methods.base import MethodFile
from anonlib.methods.feature_transfer import STILL_RECOGNIZED
from anonlib.models.catalog import MODELS, VERIFIERS
from anonlib.synthesis.textures.ksame_net import NetworkDecoder
from anonlib.verification.conditions import claim_of
from tests.support.methods import method_named

PLACES = {"input": {"uri": "in"}, "output": {"uri": "out"}, "workspace": {"uri": "ws"}}
PIPELINE = {"dlib-resnet", "faceres"}
ACCEPTED = {"name": "embedding", "accept": STILL_RECOGNIZED}
COMPLETE: dict[str, dict[str, Any]] = {
    "dp-laplace": {"epsilon": 3},
    "dp-vmf": {"kappa": 3},
    "dp-purkayastha": {"epsilon": 3},
    "dp-subset": {"epsilon": 3, "near": 4},
    "embedding": {"accept": STILL_RECOGNIZED},
    "inswapper": {"swapper": "s.onnx", "recognizer": "r.onnx", "donors": "people/"},
}


@pytest.mark.parametrize(
    ("method", "complaint"),
    [
        ({"name": "k-anonymous"}, "Input should be 'k-diff', .* or 'pixelate'"),
        ({"texture": "oil"}, "Input should be 'average', 'gallery' or 'ksame-net'"),
        ({"name": "k-diff", "k": 1}, "greater than or equal to 2"),
        ({"name": "dp-vmf"}, "dp-vmf needs a value of method.kappa"),
        ({"name": "dp-uniform", "epsilon": 3}, "epsilon belongs to dp-laplace and dp-.* and dp-subset"),
        ({"name": "dp-subset", "epsilon": 3}, "dp-subset needs a value of method.near"),
        ({"name": "dp-subset", "epsilon": 3, "near": 4, "texture": "ksame-net"}, "its texture is not ksame-net"),
        ({"name": "sampling", "texture": "average"}, "not average"),
        ({"name": "embedding"}, "deceives recognizers and not people, so it anonymizes nobody"),
        ({"name": "embedding", "accept": "yes"}, f'accept: "{STILL_RECOGNIZED}"'),
        ({**ACCEPTED, "texture": "gallery"}, "changes the face's own px and has no texture"),
        ({"name": "inswapper", "swapper": "s", "recognizer": "r"}, r"swapper and recognizer, the .onnx files.*donors"),
        ({"name": "solid", "swapper": "s", "donors": "p"}, "swapper belongs to inswapper; the method is solid"),
        ({"accept": STILL_RECOGNIZED}, "accept belongs to embedding; the method is k-diff"),
    ],
)
def test_a_method_that_cannot_work_is_refused_in_a_sentence(method: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        JobConfig.model_validate(PLACES | {"method": method})


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_models_of_the_catalogue_and_reads_its_own_keys(name: str) -> None:
    method = method_named(name, **COMPLETE.get(name, {}))
    job = JobConfig.model_validate(PLACES | {"method": method.settings})
    scan, render = models_of(job)
    assert {*scan, *render} <= set(MODELS)
    assert set(VERIFIERS) <= set(render) if method.synthesis else (scan, render) == (("centerface",), ())
    assert {*method.keys, *method.required} <= set(type(method.settings).model_fields)
    assert method.claim == claim_of(method.settings), "a verifier knows the claim without the method"


@pytest.mark.parametrize(
    ("method", "used"),
    [
        ({"name": "solid"}, set()),
        ({"name": "blur"}, set()),
        ({"name": "k-diff"}, PIPELINE),
        ({"name": "k-same", "texture": "ksame-net"}, {*PIPELINE, "mobileface"}),
        ({"name": "sampling"}, {*PIPELINE, "mobileface"}),
        ({"name": "surrogate"}, {*PIPELINE, "mobileface"}),
        ({"name": "dp-uniform"}, PIPELINE),
        (ACCEPTED, {*PIPELINE, "mobileface"}),
    ],
)
def test_a_recognizer_that_took_part_is_never_called_held_out(method: dict[str, Any], used: set[str]) -> None:
    assert method_named(**method).recognizers_used() == used


def face(presence: float = 0.99, yaw: float = 5.0, bare: float = 0.9, eyes: float = 60.0) -> pa.Table:
    """What a scan measured of one face, which can be replaced if nothing else is said."""
    points = np.array([0, 0, eyes, *[0] * 7], np.float32)
    landmarks = pa.FixedSizeListArray.from_arrays(pa.array(points), 10)
    return pa.table({"presence": [presence], "yaw": [yaw], "bare": [bare], "landmarks": landmarks})


@pytest.mark.parametrize(
    ("changes", "name", "reason"),
    [
        ({}, "k-diff", None),
        ({"presence": 0.2}, "k-diff", "the mesh does not fit"),
        ({"yaw": -71.0}, "k-diff", "turned away by more than 60 degrees"),
        ({"bare": 0.3}, "k-diff", "something covers the face"),
        ({"bare": 0.3, "presence": 0.2}, "k-diff", "the mesh does not fit"),
        ({"eyes": 9.0}, "embedding", "fewer than 16 px between the eyes"),
        ({"eyes": 9.0}, "k-diff", None),
    ],
)
def test_a_face_that_cannot_be_replaced_is_redacted_with_the_reason(
    changes: dict[str, float], name: str, reason: str | None
) -> None:
    method = method_named(name, **({"accept": STILL_RECOGNIZED} if name == "embedding" else {}))
    (why,) = method.eligible(face(**changes))
    assert (why is None) == (reason is None) and (reason or "") in (why or "")


NETWORK = {"texture": "ksame-net"}


def files_of(*accepted: str, **method: Any) -> dict[str, MethodFile]:
    document = {**PLACES, "method": {"name": "dp-uniform", **method}, "accept_licences": accepted}
    job = JobConfig.model_validate(document)
    return method_of(job.method).read_files(job)


def test_the_shipped_network_is_used_only_where_its_terms_are_accepted() -> None:
    with pytest.raises(ConfigError, match=r"non-commercial.*add ksame-net to accept_licences.*texture gallery"):
        files_of(**NETWORK)
    assert files_of("ksame-net", **NETWORK)["decoder"].data == NetworkDecoder.shipped()


def test_the_shipped_network_is_the_one_of_its_card_and_its_bank_holds_unlike_people() -> None:
    import anonlib.synthesis as home

    data = NetworkDecoder.shipped()
    assert len(data) < 30_000_000
    card = (Path(home.__path__[0]) / "shipped/ksame-net.md").read_text()
    network = NetworkDecoder.from_bytes(data)
    assert network.digest in card and network.about.terms in card
    bank = network.bank
    likeness = bank.vectors @ bank.vectors.T
    assert np.median(likeness[~np.eye(len(likeness), dtype=bool)]) < 0.1
    assert np.allclose(np.linalg.norm(bank.vectors, axis=1), 1, atol=1e-5)
    assert {0.0, 1.0} == set(bank.female.tolist()) and 18 <= bank.age.min() < 25 < 60 < bank.age.max() <= 80


def test_a_method_that_decodes_never_falls_back_to_an_average_where_its_file_is_missing() -> None:
    with pytest.raises(ValueError, match="no decoder came with the job"):
        assert method_named("k-diff", texture="ksame-net").decoder  # type: ignore[attr-defined]
    assert method_named("k-diff", texture="average").decoder is None  # type: ignore[attr-defined]
