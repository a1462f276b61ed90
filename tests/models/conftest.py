"""A toy model for fetching, shared by the tests of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from anonlib.models import cache
from anonlib.models.catalog import MODELS
from tests.models import toy_model


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy in the catalogue, its wheel in the archives folder of an empty cache; the cache is returned."""
    monkeypatch.setenv("ANONLIB_MODELS", str(tmp_path))
    monkeypatch.setitem(MODELS, toy_model.NAME, MODELS[toy_model.NAME])
    monkeypatch.setitem(cache.stored(), toy_model.NAME, cache.stored()[toy_model.NAME])
    toy_model.install(tmp_path / "archives")
    return tmp_path
