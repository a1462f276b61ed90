"""Runs a job again and again on a disk with almost no room, then with enough. In a mount namespace of its own:

    unshare -m python full_disk.py JOB.yaml MOUNT KIB...     KIB is what is left free on MOUNT for each run in turn

MOUNT becomes a small file system in memory, where temporary files go, too. Prints why each run stopped and what lay
under its final name then, at last what the run with enough room made.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from anonlib.config import load_config
from anonlib.errors import JobError, StorageError
from anonlib.job import Job
from tests.support.runs import contents, lasting, salted

ROOM = "4m"


def finished(root: Path) -> dict[str, str]:
    """What lies in the job's two places under a final name, but what was spent, and in the release all else, too."""
    kept = {f"workspace/{path}": digest for path, digest in lasting(root / "workspace").items()}
    return kept | {f"release/{path}": digest for path, digest in contents(root / "release").items()}


def fill(mount: Path, kibibytes: int) -> Path:
    """A file that leaves so much room."""
    ballast = mount / "ballast"
    block = bytes(1024)
    with ballast.open("wb", buffering=0) as stream:
        try:
            while stream.write(block):
                pass
        except OSError:
            pass
        stream.truncate(max(stream.tell() - (kibibytes << 10), 0))
    return ballast


def main() -> None:
    config, mount = load_config(Path(sys.argv[1])), Path(sys.argv[2])
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "none", str(mount)], check=True)
    tempfile.tempdir = str(mount)
    salted(config)
    root = Path(config.output.uri).parent
    for kibibytes in map(int, sys.argv[3:]):
        ballast = fill(mount, kibibytes)
        try:
            said = str(Job(config).run())
        except (JobError, StorageError) as error:
            said = str(error)
        print(json.dumps([said, finished(root)]), flush=True)
        ballast.unlink()
    print(json.dumps([str(Job(config).run().code), finished(root)]), flush=True)


if __name__ == "__main__":
    main()
