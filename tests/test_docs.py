"""What the documents say of the code is so."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_test_that_a_claim_names_exists() -> None:
    """docs/methods.md names a test for each condition of a claim."""
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "methods.md").read_text()))
    written = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) >= 8
    assert not {name for name in named if f"def {name}(" not in written}
