"""A forger at work on a copy of a finished release."""

from __future__ import annotations

from pathlib import Path

import pytest
from forgery import Forger
from runs import Run


@pytest.fixture
def forger(finished: Run, tmp_path: Path) -> Forger:
    """Whatever he does is done to a copy."""
    return Forger(finished.output, tmp_path / "forged")
