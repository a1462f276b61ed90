"""A verifier stands free: it loads what reads and checks a release, and nothing that sees, runs or plans."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from anonlib.terminal import RUN_MODULES

_ROOMS = {
    "": ("codes", "datasets", "errors", "storage", "verification", "workspace"),
    "datasets.": ("base", "folder", "names", "webdataset"),
    "datasets.parquet": ("", "_columns", "_footer"),
    "storage.": ("base", "local", "scratch", "uri"),
    "verification.": ("certificate", "conditions", "data_files", "parsing", "release"),
    "workspace.": ("schemas",),
}
MODULES = {"anonlib", *(f"anonlib.{room}{name}" for room, names in _ROOMS.items() for name in names)}
THIRD_PARTY = {"cryptography", "numpy", "pyarrow", "pydantic"}
HEAVY = {"cv2", "faiss", "onnx", "onnxruntime", "openvino", "PIL", "ray", "scipy", "simplejpeg", "skimage", "torch"}
HEAVY |= {"turbojpeg"}


def loaded(code: str, *arguments: str) -> set[str]:
    """The modules that a new process has loaded when `code` has ended."""
    ending = "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code + ending, *arguments], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def release(tmp_path: Path) -> str:
    with tarfile.open(Path(__file__).with_name("release-0.1.0.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    return str(tmp_path / "release")


def test_verify_loads_these_modules_and_no_more(release: str) -> None:
    code = (
        "import sys\nfrom anonlib.storage import open_storage\nfrom anonlib.verification.release import verify\n"
        "verify(open_storage(sys.argv[1]))"
    )
    modules = loaded(code, release)
    assert {name for name in modules if name.split(".")[0] == "anonlib"} == MODULES
    tops = {name.split(".")[0] for name in modules}
    assert tops >= THIRD_PARTY and not tops & HEAVY


WITHOUT = """
import sys
from anonlib.terminal import RUN_MODULES
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in RUN_MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from anonlib.cli import main
main()
"""


@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        (["verify", "RELEASE"], 0, ""),
        (["export", "RELEASE", "--to", "masks", "--into", "masks"], 0, ""),
        (["status", "--workspace", "nowhere"], 0, ""),
        (["run", "--input", "in", "--output", "out", "--workspace", "w"], 1, "pip install 'anonlib[run]'"),
        (["models", "list"], 0, ""),
    ],
)
def test_a_run_says_what_to_install(command: list[str], code: int, sentence: str, release: str, tmp_path: Path) -> None:
    arguments = [release if argument == "RELEASE" else argument for argument in command]
    path = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments], capture_output=True, text=True, cwd=tmp_path, env=os.environ | path
    )
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr and "Traceback" not in done.stderr


def test_the_package_installs_what_a_verifier_loads_and_the_extra_the_rest() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    core, extra = ({re.split(r"[><=\[]", need)[0] for need in needs} for needs in (
        project["dependencies"], project["optional-dependencies"]["run"],
    ))  # fmt: skip
    modules = {"opencv-python-headless": "cv2", "faiss-cpu": "faiss", "pillow": "PIL"}
    assert {modules.get(name, name) for name in extra} == RUN_MODULES
    assert core >= THIRD_PARTY and not core & extra
