"""Imports point one way, as docs/architecture.md draws it, and heavy ones happen where they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "anonlib"
LAYERS = (
    ("errors", "codes", "config", "storage", "workspace.schemas"),
    ("datasets", "models", "media"),
    ("faces", "privacy"),
    ("synthesis",),
    ("verification",),
    ("methods",),
    ("workspace",),
    ("stages", "execution", "job", "anonymizer"),
    ("audit",),
    ("review",),
    ("cli", "doctor", "terminal"),
)
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
KNOWN = {"config.py": {"methods"}}
"""The one import from above: a job's `method` is checked by METHODS[name].Settings, in a function, when it is read."""
STAGES = ("scan", "plan", "render", "certify")
STRANGERS = ({"faces", "privacy"}, {"datasets", "models"})
MODULES = sorted(ROOT.rglob("*.py"))


def room_of(path: Path) -> str:
    name = path.relative_to(ROOT).as_posix()
    return "workspace.schemas" if name == "workspace/schemas.py" else name.split("/")[0].removesuffix(".py")


def imported(path: Path) -> dict[str, bool]:
    """Dotted names that a module imports -> whether that happens as soon as the module is imported."""
    tree = ast.parse(path.read_text())
    inside = {id(node) for function in ast.walk(tree) if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
              for node in ast.walk(function)}  # fmt: skip
    found: dict[str, bool] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            found[name] = found.get(name, False) or id(node) not in inside
    return found


def rooms(path: Path) -> set[str]:
    names = (name for name in imported(path) if name.startswith("anonlib."))
    return {
        "workspace.schemas" if name.startswith("anonlib.workspace.schemas") else name.split(".")[1] for name in names
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_from_below_alone(path: Path) -> None:
    mine = room_of(path)
    if mine in ("__init__", "__main__"):
        return
    assert mine in RANK, f"{mine} has no place in docs/architecture.md's order"
    known = KNOWN.get(str(path.relative_to(ROOT)), set())
    for other in rooms(path) - {mine, "__version__"} - known:
        assert RANK[other] <= RANK[mine], f"{mine} may not import {other}"
        assert not any({mine, other} == pair for pair in STRANGERS), f"{mine} and {other} do not know each other"


def test_only_the_runner_imports_ray() -> None:
    users = [path for path in MODULES if any(name.split(".")[0] == "ray" for name in imported(path))]
    assert users == [ROOT / "execution" / "ray.py"]


def test_mathematics_knows_no_files_and_no_images() -> None:
    forbidden = {"cv2", "PIL", "ray", "pyarrow", "boto3", "simplejpeg", "skimage"}
    for path in MODULES:
        if room_of(path) == "privacy":
            assert not {name.split(".")[0] for name in imported(path)} & forbidden, path


def test_torch_ray_and_faiss_wait_until_they_are_used_and_so_does_what_is_made_of_torch() -> None:
    early = {path: {name for name, at_once in imported(path).items() if at_once} for path in MODULES}
    heavy = {path: {name.split(".")[0] for name in names} & {"torch", "ray", "faiss", "openvino", "onnxruntime"}
             for path, names in early.items()}  # fmt: skip
    made_of_torch = {
        f"anonlib.{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}"
        for path in MODULES
        if "torch" in heavy[path]
    }
    for path in MODULES:
        # Networks are made of torch, and nobody else imports these at once.
        networks = path.name in ("torch_graph.py", "networks.py")
        assert heavy[path] <= ({"torch"} if networks else set()), f"{path} imports {heavy[path]} at once"
        assert not early[path] & made_of_torch, path


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_knows_no_other_stage_and_no_runner(stage: str) -> None:
    names = imported(ROOT / "stages" / f"{stage}.py")
    assert not {name.split(".")[2] for name in names if name.startswith("anonlib.stages.")} & set(STAGES) - {stage}
    assert {name.split(".")[2] for name in names if name.startswith("anonlib.execution.")} <= {"base"}


def test_a_job_and_a_decoder_process_begin_without_what_few_of_them_need() -> None:
    for module, late in (
        ("anonlib.job", ("scipy", "onnx", "torch", "faiss", "ray")),
        ("anonlib.media.sandbox.worker", ("pydantic", "pyarrow", "cv2", "yaml")),
    ):
        code = f"import sys, {module}; print([name for name in {late} if name in sys.modules])"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
