"""The notebooks run from the first cell to the last on a small release, and end in a decision."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.support.findings import report
from tests.support.runs import Run

ROOT = Path(__file__).parents[2]


def executed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **environment: str) -> nbformat.NotebookNode:
    """The notebook with its outputs; a cell that fails fails the test."""
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = jupytext.read(ROOT / "notebooks" / f"{name}.py")
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    return client.execute()


def printed(notebook: nbformat.NotebookNode) -> tuple[str, int]:
    """Everything that was printed, and how many charts were drawn, as pictures that need no network."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    text = "".join(output["text"] for output in outputs if output.get("name") == "stdout")
    return text, sum("image/svg+xml" in output.get("data", {}) for output in outputs)


def test_every_notebook_is_for_somebody_and_ends_in_a_decision_and_none_has_outputs() -> None:
    for path in (ROOT / "notebooks").glob("*.py"):
        texts = [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "markdown"]
        assert "\nFor who" in texts[0] and "## Decide" in texts[-1]
    assert not list((ROOT / "notebooks").glob("*.ipynb"))


def test_a_manifest_is_explored(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = executed("explore_manifest", tmp_path, monkeypatch, ANONLIB_RELEASE=str(finished.output))
    text, charts = printed(notebook)
    assert "k-anonymity of the identity channel, k = 2" in text
    assert "27 images: 24 released, 3 no_face" in text
    assert "images without a hidden face: " in text and charts == 1


def test_a_release_that_was_changed_is_not_explored(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished.output, tmp_path / "release")
    (tmp_path / "release" / "data" / "00001.tar").write_bytes(b"")
    with pytest.raises(CellExecutionError, match="Do not use this release"):
        executed("explore_manifest", tmp_path, monkeypatch, ANONLIB_RELEASE=str(tmp_path / "release"))


def test_releases_are_compared_and_the_one_that_passed_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = []
    for name, passed in (("safe", True), ("careless", False)):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(report(passed, release=name).model_dump_json())
    notebook = executed("compare_methods", tmp_path, monkeypatch, ANONLIB_REPORTS=os.pathsep.join(map(str, paths)))
    text, charts = printed(notebook)
    assert "careless: k-diff" in text and text.count("NOT passed\n") == 1
    assert text.rstrip().splitlines()[-1].startswith("safe: expression kept 0.703, at most ")
    assert charts == 3


def test_k_and_epsilon_are_chosen_for_a_risk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = executed("choose_k_and_epsilon", tmp_path, monkeypatch, ANONLIB_PEOPLE="200", ANONLIB_RISK="0.2")
    text, charts = printed(notebook)
    assert "method: {name: k-diff, k: 5}" in text
    assert "dp-laplace: epsilon up to 2 is proved to be enough" in text and charts == 2
