"""What all tests of attacks agree on."""

from __future__ import annotations

import pytest

from anonlib.audit.attacks import base


@pytest.fixture(autouse=True)
def _half_of_sixty_people_are_enough_for_a_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "ENOUGH_IMPOSTORS", 5_000)
