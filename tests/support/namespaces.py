"""Namespaces of the kernel in which a test is alone, as root or, where that is allowed, as any user."""

from __future__ import annotations

import os
import subprocess
from shutil import which


def unshared(*kinds: str) -> list[str]:
    """The command before a command that is to run in namespaces of its own, such as `--net`."""
    return ["unshare", *kinds] if os.geteuid() == 0 else ["unshare", "--map-root-user", *kinds]


def refused() -> str | None:
    """Why there can be no network namespace here; None if there can."""
    absent = [tool for tool in ("unshare", "ip") if which(tool) is None]
    if absent:
        return f"{', '.join(absent)} not installed"
    tried = subprocess.run([*unshared("--net"), "ip", "link", "set", "lo", "up"], capture_output=True, text=True)
    return f"no network namespaces here: {tried.stderr.strip()}" if tried.returncode else None
