"""Methods by name, as a job would make them."""

from __future__ import annotations

from typing import Any

from anonlib.config import JobConfig
from anonlib.methods import method_of, settings_of
from anonlib.methods.base import Method


def method_named(name: str = "k-diff", **settings: Any) -> Method:
    """A method without its files."""
    return method_of(settings_of({"name": name, **settings}))


def method_with_files(config: JobConfig) -> Method:
    """A job's method with the files that its driver would read."""
    files = method_of(config.method).read_files(config)
    return method_of(config.method, {name: file.data for name, file in files.items()})
