"""What must not be in a release, looked for in every file of it."""

from anonlib.audit.leaks.scan import CHECKS, scan_leaks

__all__ = ["CHECKS", "scan_leaks"]
