"""The optional packages of the report, and the one sentence for who has not installed them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from anonlib.errors import JobError


def need(name: str) -> ModuleType:
    """The module, which comes with the extra `report`; raises JobError."""
    try:
        return import_module(name)
    except ImportError as error:
        raise JobError(
            f"the report needs {error.name or name}, which is not installed: pip install 'anonlib[report]'"
        ) from None
