"""A trial shows and times a few photos of a job in places of its own, and leaves nothing but its page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from typer.testing import CliRunner

from anonlib.cli import app
from anonlib.datasets import open_dataset
from anonlib.errors import JobError
from anonlib.review.trial import drawn, estimate, preview
from anonlib.workspace.layout import PREVIEW
from anonlib.workspace.purge import purge
from tests.review.test_browser import browser
from tests.support import photos
from tests.support.runs import job

pytestmark = pytest.mark.job


def put(folder: Path, count: int = 3) -> Path:
    """The astronaut some times with a box of the flag, and a file that is no image."""
    folder.mkdir()
    for number in range(count):
        (folder / f"a{number}.jpg").write_bytes(photos.jpeg(photos.astronaut()))
        (folder / f"a{number}.json").write_text(json.dumps({"mine": [{"box": [20, 20, 140, 200], "kind": "flag"}]}))
    (folder / "bad <b>.jpg").write_bytes(b"no image")
    return folder


def test_a_preview_shows_photos_before_and_after_with_scores_and_reasons(tmp_path: Path) -> None:
    source = put(tmp_path / "input")
    config = job(source, tmp_path, method={"name": "blur"}, input={"uri": str(source), "boxes_field": "mine"})
    place = preview(config, images=4)
    assert place == f"{config.workspace.uri}/{PREVIEW}" and not Path(config.output.uri).exists()
    assert [path.name for path in Path(config.workspace.uri).iterdir() if path.name != "salt"] == [PREVIEW]
    page = Path(place).read_text()
    assert page.count("<figure>") == 4 and page.count("<img") == 6 and 'min="0.4"' in page
    scores = [float(score) for score in re.findall(r'data-score="([\d.]+)"', page)]
    assert len(scores) == 12 and scores.count(1.0) == 6 and min(scores) >= 0.4
    assert page.count('title="face ') == 6 and "1.00, fill: a region of another kind is hidden and not replaced" in page
    assert "bad &lt;b&gt;.jpg; quarantined: the file is not an image" in page and "bad <b>" not in page
    with browser() as shown:
        shown.get(f"file://{place}")
        shown.execute_script("score.value = 1; score.dispatchEvent(new Event('input'))")
        visible = [box for box in shown.find_elements(By.TAG_NAME, "b") if box.is_displayed()]
        assert len(visible) == 6 and "1.00: 3 of 6" in shown.find_element(By.ID, "told").text
    with pytest.raises(JobError, match="the preview is destroyed"):
        purge(config)
    assert not Path(place).exists()
    assert "http" not in page.replace("https://", "http://").replace("http://www.w3.org", "")


def test_the_same_seed_draws_the_same_photos_and_plans_them_among_themselves(people_tars: Path, tmp_path: Path) -> None:
    dataset = open_dataset(str(people_tars))
    again = [[sample.key for sample in drawn(dataset, dataset.shards()[0], 4, seed)[0]] for seed in (3, 3, 4)]
    assert again[0] == again[1] != again[2]
    page = Path(preview(job(people_tars, tmp_path), images=6, seed=3)).read_text()
    keys = re.findall(r"<figcaption>([^<]*)", page)
    assert len(keys) == len(set(keys)) == 6 and page.count("<img") == 12 and "data-score" in page


def test_an_estimate_counts_images_and_hours_and_writes_nothing(people_tars: Path, tmp_path: Path) -> None:
    config = job(people_tars, tmp_path, method={"name": "solid"})
    found = estimate(config, images=4)
    assert found.images == 27 and found.bytes == sum(path.stat().st_size for path in people_tars.glob("*.tar"))
    assert 0 < found.core_hours < 0.1 and found.error is not None
    (tmp_path / "job.yaml").write_text(config.to_yaml())
    done = CliRunner().invoke(app, ["estimate", str(tmp_path / "job.yaml"), "--images", "2", "--core-hour", "2"])
    assert done.exit_code == 0 and "about 27" in done.stdout and "cost" in done.stdout, done.output
    assert not Path(config.output.uri).exists() and {path.name for path in (tmp_path / "workspace").iterdir()} <= {
        "salt"
    }
