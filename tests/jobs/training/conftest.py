"""Generated heads, prepared for training."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.training.data import PreparedFaces, load, prepare
from tests.support.heads import heads


@pytest.fixture(scope="package")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the prepared faces of 48 generated people, three photos each, apart from no dataset."""
    root = tmp_path_factory.mktemp("prepared")
    prepare(str(heads(root / "heads.tar", 48)), root / "faces")
    return root / "faces"


@pytest.fixture(scope="package")
def faces(prepared: Path) -> PreparedFaces:
    return load(prepared)
