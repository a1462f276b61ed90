"""What may befall a request to a storage."""

from __future__ import annotations

ANSWERS = {
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "expired": (400, "ExpiredToken"),
    "skewed": (403, "RequestTimeTooSkewed"),
    "denied": (403, "AccessDenied"),
    "full": (507, "InsufficientStorage"),
}
"""Faults that are an answer instead of the request being carried out: status and S3's code."""

BROKEN = ("slow", "reset-before", "reset-after", "torn-body", "torn-upload")
"""Faults of the connection. Only after `reset-after` was the request carried out."""

FAULTS = (*ANSWERS, *BROKEN)
TRANSIENT = ("500", "503", *BROKEN)
"""Faults that pass; the others last until a person does something."""


def fits(fault: str, method: str) -> bool:
    """Whether a fault can befall such a request: only a GET has a body to tear, only a PUT or POST uploads one."""
    wanted = {"torn-body": ("GET",), "torn-upload": ("PUT", "POST"), "full": ("PUT", "POST")}
    return method in wanted.get(fault, (method,))
