"""A forger at work on a copy of a finished release."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.forgery import Forger
from tests.support.runs import Run


@pytest.fixture
def forger(finished: Run, tmp_path: Path) -> Forger:
    """Whatever he does is done to a copy."""
    return Forger(finished.output, tmp_path / "forged")
