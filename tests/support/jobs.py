"""The scripts in jobs/, which are in no package and find their neighbours as Python starts them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

JOBS = Path(__file__).parents[2] / "jobs"


def script(name: str) -> Any:
    """jobs/NAME.py as a module."""
    if str(JOBS) not in sys.path:
        sys.path.append(str(JOBS))
    return importlib.import_module(name)
