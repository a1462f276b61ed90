"""What a stranger runs: a release checked against its certificate, with the release alone."""

from anonlib.errors import VerificationError
from anonlib.verification.release import Verified, unproved, verify

__all__ = ["VerificationError", "Verified", "unproved", "verify"]
