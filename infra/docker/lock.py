"""Prints requirements.txt from a report of pip: what the images hold beside torch, by version and sha256 of the wheel.

torch is left out with the CUDA packages that it brings: which build there is depends on the index that the images are
built from, so a hash would tie them to one index. anonlib is built from its own tree.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

HEAD = """\
# What the images hold beside torch, all of it, for Linux on x86-64 and Python 3.11. pip takes no other file.
# To renew it, in Python 3.11 on Debian 12, whose wheels the images get:
#   pip install --dry-run --ignore-installed --report report.json ".[clips,run]" "ray[default]==VERSION" torch==VERSION
#   python infra/docker/lock.py report.json > infra/docker/requirements.txt
"""
APART = re.compile(r"anonlib|torch|triton|nvidia-.*|cuda-.*")


def lines(report: dict[str, Any]) -> list[str]:
    """One requirement a package, by name. Raises ValueError for a package that is no wheel or has no sha256."""
    found = {}
    for one in report["install"]:
        name = re.sub(r"[-_.]+", "-", one["metadata"]["name"]).lower()
        if APART.fullmatch(name):
            continue
        file = one["download_info"]["url"].rpartition("/")[2].partition("#")[0]
        sha256 = one["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if sha256 is None or not file.endswith(".whl"):
            raise ValueError(f"{name}: {file} is not a wheel with a sha256; name another version of it")
        found[name] = f"{name}=={one['metadata']['version']} \\\n    --hash=sha256:{sha256}"
    return [found[name] for name in sorted(found)]


if __name__ == "__main__":
    print(HEAD + "\n".join(lines(json.loads(Path(sys.argv[1]).read_text()))))
