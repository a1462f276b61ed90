"""Which decoder a job gets, under which terms, and what the shipped network holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonlib.config import JobConfig
from anonlib.errors import ConfigError
from anonlib.methods import method_of
from anonlib.methods.base import MethodFile
from anonlib.synthesis.textures.ksame_net import NetworkDecoder
from tests.support.methods import method_named

PLACES = {"input": {"uri": "in"}, "output": {"uri": "out"}, "workspace": {"uri": "ws"}}
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
