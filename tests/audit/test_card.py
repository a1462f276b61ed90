"""README.md of an audited release: Hugging Face's own reader understands it, and it holds the report's figures."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

from anonlib.audit.croissant import dataset_card, responsible_ai
from tests.support import findings
from tests.support.runs import job


@pytest.mark.parametrize(("images", "size"), [(12, "n<1K"), (4_054, "1K<n<10K"), (3_000_000_000, "n>1B")])
def test_the_hub_reads_the_card(images: int, size: str, tmp_path: Path) -> None:
    report = findings.report()
    counts = report.counts.model_copy(update={"images": images, "quarantined": 0})
    report = report.model_copy(update={"counts": counts, "release": "faces: of 2026\n---\n"})
    described = {"description": "Photographs.", **responsible_ai(report, job(tmp_path / "input", tmp_path))}
    card = DatasetCard(dataset_card(report, described, "webdataset"))
    assert card.data.size_categories == [size] and card.data.pretty_name == report.release
    assert card.data.to_dict()["configs"] == [{"config_name": "default", "data_files": "data/**/*.tar*"}]
    assert "Singling out" in card.text and "Other fields kept: caption." in card.text and "12 of" not in card.text
    assert card.text.count("\n## ") == 7
