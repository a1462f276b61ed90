"""The contact sheet shows the faces that it says, before and after, and leaves the workspace nowhere."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anonlib.audit import sheet
from anonlib.audit.sheet import SheetCell, draw, draw_examples, make_sheet
from anonlib.config import JobConfig
from anonlib.errors import JobError
from anonlib.workspace.layout import open_stores
from tests.support import photos
from tests.support.runs import Run, contents, job, run_job


def cells_of(config: JobConfig) -> list[SheetCell]:
    stores = open_stores(config)
    return list(sheet.cells_of(config, stores, draw(stores, 100, 0)[0]))


def test_the_sheet_lies_in_the_workspace_alone_and_is_the_same_for_the_same_seed(
    copied: JobConfig, tmp_path: Path
) -> None:
    before = contents(tmp_path)
    path, pages = tmp_path / "workspace" / "sheet.jpg", []
    for seed in (1, 1, 2):
        assert make_sheet(copied, faces=4, seed=seed) == str(path)
        pages.append(path.read_bytes())
    assert pages[0] == pages[1] != pages[2]
    after = contents(tmp_path)
    assert after.pop("workspace/sheet.jpg") and after == before
    (tmp_path / "workspace" / "purged.json").write_text("{}")
    with pytest.raises(JobError, match="was purged"):
        make_sheet(copied)


def test_every_face_has_its_original_and_its_release_beside_it(copied: JobConfig) -> None:
    cells = cells_of(copied)
    assert len(cells) == 24
    for before, after, *_ in cells:
        assert before is not None and after is not None
        difference = np.abs(before.astype(int) - after.astype(int)).mean(axis=2)
        third = len(difference) // 3
        rim = np.concatenate([difference[:8].ravel(), difference[-8:].ravel()])
        assert difference[third:-third, third:-third].mean() > 3 * rim.mean()


@pytest.mark.parametrize(("rekey", "relative"), [(False, True), (True, False)])
def test_keys_and_places_may_change_their_spelling(
    rekey: bool, relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(photos.jpeg(photos.astronaut()))
    (folder / "b.jpg").write_bytes(b"not an image")
    (folder / "c.png").write_bytes(photos.encoded(photos.astronaut()[:, ::-1], "PNG"))
    run_job(folder, tmp_path, method={"name": "solid"}, rekey=rekey)
    root = "." if relative else str(tmp_path)
    cells = cells_of(job(f"{root}/input", root, method={"name": "solid"}, rekey=rekey))
    assert [(before is None, after is None, label) for before, after, label, *_ in cells] == [
        (False, False, "solid")
    ] * 2


def test_examples_of_the_report_are_drawn_without_the_originals(finished: Run, tmp_path: Path) -> None:
    elsewhere = finished.config.input.model_copy(update={"uri": "/nowhere/*.tar"})
    blind = finished.config.model_copy(update={"input": elsewhere})
    examples, repeated, other = (draw_examples(blind, "webdataset", faces=5, seed=seed) for seed in (1, 1, 2))
    assert len(examples) == 5 and examples == repeated != other
    assert all(Image.open(io.BytesIO(jpeg)).size == (176, 176) for jpeg, _ in examples)
    assert all(caption.startswith(("k-diff, k = ", "fill")) for _, caption in examples)
    output = finished.config.output.model_copy(update={"uri": f"{tmp_path}/empty"})
    with pytest.raises(JobError, match="holds no release yet"):
        draw_examples(finished.config.model_copy(update={"output": output}), "webdataset")
