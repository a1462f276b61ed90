"""A job loads what its method needs, and no weights that it has not accepted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from anonlib.errors import ConfigError
from anonlib.models.catalog import MODELS
from anonlib.models.requirements import check_licences
from tests.support.runs import job


def test_non_commercial_weights_must_be_accepted_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "faceres", replace(MODELS["faceres"], commercial=False, licence="CC-BY-NC-4.0"))
    with pytest.raises(ConfigError, match=r"faceres are CC-BY-NC-4\.0.*accept_licences"):
        check_licences(["faceres"], job("in", tmp_path))
    check_licences(["faceres"], job("in", tmp_path, accept_licences=["faceres"]))
    check_licences(["centerface"], job("in", tmp_path))
