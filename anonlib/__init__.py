"""Anonymize the faces of image datasets, and keep the record that proves it.

    import anonlib

    summary = anonlib.load_job("job.yaml", method={"k": 7}).run()
    anonlib.verify("s3://release/2026-11", key="...")
    dataset.map_batches(anonlib.Anonymizer(method="solid"))

Everything is imported when it is first used, so that `import anonlib` takes no time.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anonlib.anonymizer import Anonymizer as Anonymizer
    from anonlib.faces.detect import DETECTORS as DETECTORS
    from anonlib.job import Job as Job
    from anonlib.methods import METHODS as METHODS
    from anonlib.verification.release import Verified

__version__ = "0.2.0"
__all__ = ["DETECTORS", "METHODS", "Anonymizer", "Job", "__version__", "load_job", "verify"]
_HOMES = {
    "Anonymizer": "anonlib.anonymizer",
    "DETECTORS": "anonlib.faces.detect",
    "Job": "anonlib.job",
    "METHODS": "anonlib.methods",
}


def load_job(source: str | Path | Mapping[str, Any], **overrides: Any) -> Job:
    """A job, opened: `run()` does all of it, `scan()`, `make_plan()` and `render()` a stage each. Raises AnonlibError.

    `source`: a job file's path, or what it would hold; `overrides` change keys of sections (`method={"k": 7}`).
    """
    from anonlib.config import load_config
    from anonlib.job import Job

    return Job(load_config(Path(source) if isinstance(source, str) else source, dict(_dotted(overrides))))


def verify(uri: str, key: str | None = None, *, endpoint_url: str | None = None, region: str | None = None) -> Verified:
    """Check a release (a folder or s3:// prefix) with nothing but itself; raises VerificationError.

    `key`: the public key, in hex, that must have signed it. See `audit_stands` of the answer for its audit.
    """
    from anonlib.storage import StorageOptions, open_storage
    from anonlib.verification.release import verify as check

    return check(open_storage(uri, StorageOptions(endpoint_url=endpoint_url, region=region)), key)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'anonlib' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _dotted(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """`{"method": {"k": 7}}` as `[("method.k", 7)]`."""
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        pairs += _dotted(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return pairs
