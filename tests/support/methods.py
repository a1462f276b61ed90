"""Methods by name, as a job would make them."""

from __future__ import annotations

from typing import Any

from anonlib.methods import method_of, settings_of
from anonlib.methods.base import Method


def method_named(name: str = "k-diff", **settings: Any) -> Method:
    """A method without its files."""
    return method_of(settings_of({"name": name, **settings}))
