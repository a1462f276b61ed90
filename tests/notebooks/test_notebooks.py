"""The notebooks run from the first cell to the last on a small release, and end in a decision."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from anonlib.audit.attacks.similarity import first_of_each, rank_one
from anonlib.audit.evidence.evidence import RELEASED, Evidence
from anonlib.audit.findings import Attack, AuditReport, ClaimSection, Figure, Gate, GateLine, Missed, ReleaseCounts
from anonlib.audit.statistics import rate
from anonlib.audit.utility.kept import measures
from tests.support.evidence import NAME, blurred, evidence, looking, units
from tests.support.runs import Run

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


def executed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **environment: str) -> nbformat.NotebookNode:
    """The notebook with its outputs; a cell that fails fails the test."""
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = jupytext.read(ROOT / "notebooks" / f"{name}.py")
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    return client.execute()


def said(notebook: nbformat.NotebookNode) -> str:
    """Everything that was printed."""
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", ())]
    return "".join(one["text"] for one in outputs if one["output_type"] == "stream" and one["name"] == "stdout")


def pictures(notebook: nbformat.NotebookNode) -> int:
    """How many charts were drawn, as pictures that need no network."""
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", ())]
    return sum("image/svg+xml" in one.get("data", {}) for one in outputs)


def report(release: str, evidence: Evidence, passed: bool) -> AuditReport:
    """What an audit would have said of `evidence`, as far as a comparison reads it."""
    gallery = first_of_each(evidence.subjects)
    who, enrolled = evidence.subjects[~gallery], evidence.subjects[gallery]

    def naive(kind: str) -> np.ndarray:
        return rank_one(
            evidence.looks[kind].vectors[NAME][~gallery], who, evidence.clear.vectors[NAME][gallery], enrolled
        )

    named = {kind: rate(naive(kind), who, chance=1 / 60) for kind in evidence.looks}
    attacked = Attack(
        name="naive",
        target="rank-1",
        recognizer=NAME,
        held_out=True,
        released=named.pop(RELEASED),
        baselines=named,
        excess=rate(naive(RELEASED) - naive("solid"), who),
    )
    line = GateLine(name="naive", limit=0.05, bound=1.0, passed=passed, why="naive names too many")
    nothing = Figure(value=None, low=None, high=None, count=0)
    counts = ReleaseCounts(
        shards=1, images=300, released=300, no_face=0, quarantined=0, faces=300, methods={}, fallbacks={},
        quarantine_reasons={},
    )  # fmt: skip
    return AuditReport(
        release=release,
        method="k-diff",
        settings={},
        certificate_sha256="0" * 64,
        claim=ClaimSection(kind="k-anonymity", text="k-anonymity of the identity channel"),
        people=60,
        photos=300,
        labelled=True,
        counts=counts,
        gate=Gate(passed=passed, lines=(line,)),
        thresholds=(),
        attacks=(attacked,),
        histograms=(),
        leaks=(),
        utility=tuple(measures(evidence)),
        missed=Missed(second=nothing, second_by=""),
        models=(),
        software={},
    )


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A release that keeps a smile and hides the person, and one that left everything as it was."""
    folder = tmp_path_factory.mktemp("reports")
    smiles = np.tile(np.eye(7, dtype=np.float32)[[0, 1]], (150, 1))
    clear = looking(evidence(), "clear", expression=smiles)
    hidden = looking(clear, RELEASED, expression=smiles, vectors=blurred(units(60, 7), 5, 0.05, 8))
    kept = looking(clear, RELEASED, expression=smiles[::-1])
    paths = []
    for name, whole, passed in (("safe", hidden, True), ("careless", kept, False)):
        paths.append(folder / f"{name}.json")
        paths[-1].write_text(report(name, whole, passed).model_dump_json())
    return paths


def test_every_notebook_is_for_somebody_and_ends_in_a_decision() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["choose_k_and_epsilon", "compare_methods", "explore_manifest"]
    for path in NOTEBOOKS:
        texts = [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "markdown"]
        assert "\nFor who" in texts[0]
        assert "## Decide" in texts[-1]


def test_a_manifest_is_explored(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = executed("explore_manifest", tmp_path, monkeypatch, ANONLIB_RELEASE=str(finished.output))
    text = said(notebook)
    assert "k-anonymity of the identity channel, k = 2" in text
    assert "27 images: 24 released, 3 no_face" in text
    assert "images without a hidden face: " in text
    assert pictures(notebook) == 1


def test_a_release_that_was_changed_is_not_explored(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished.output, tmp_path / "release")
    (tmp_path / "release" / "data" / "00001.tar").write_bytes(b"")
    with pytest.raises(CellExecutionError, match="Do not use this release"):
        executed("explore_manifest", tmp_path, monkeypatch, ANONLIB_RELEASE=str(tmp_path / "release"))


def test_releases_are_compared_and_the_one_that_passed_is_chosen(
    reports: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = executed("compare_methods", tmp_path, monkeypatch, ANONLIB_REPORTS=os.pathsep.join(map(str, reports)))
    text = said(notebook)
    assert "careless: k-diff" in text
    assert "NOT passed\n  naive names too many" in text
    assert text.rstrip().splitlines()[-1].startswith("safe: expression kept 1.000, at most ")
    assert pictures(notebook) == 3


def test_k_and_epsilon_are_chosen_for_a_risk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = executed("choose_k_and_epsilon", tmp_path, monkeypatch, ANONLIB_PEOPLE="200", ANONLIB_RISK="0.2")
    text = said(notebook)
    assert "method: {name: k-diff, k: 5}" in text
    assert "dp-laplace: epsilon up to 2 is proved to be enough" in text
    assert pictures(notebook) == 2


def test_no_outputs_are_committed() -> None:
    assert not list((ROOT / "notebooks").glob("*.ipynb"))
