"""Examples come by lot out of the release, and from nowhere else."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from anonlib.audit.report.examples import draw_examples
from anonlib.errors import JobError
from tests.support.runs import Run


def test_examples_are_drawn_without_the_originals(finished: Run) -> None:
    elsewhere = finished.config.input.model_copy(update={"uri": "/nowhere/*.tar"})
    blind = finished.config.model_copy(update={"input": elsewhere})
    examples = draw_examples(blind, "webdataset", faces=5)
    assert len(examples) == 5
    assert all(Image.open(io.BytesIO(one.image)).size == (176, 176) for one in examples)
    assert all(one.caption.startswith(("k-diff, k = ", "solid")) for one in examples)
    assert all(one.uri.startswith("data:image/jpeg;base64,") for one in examples)


def test_the_lot_is_the_same_for_the_same_seed(finished: Run) -> None:
    first, again, other = (draw_examples(finished.config, "webdataset", faces=4, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_nothing_rendered_is_a_sentence(finished: Run, tmp_path: str) -> None:
    config = finished.config.model_copy(
        update={"output": finished.config.output.model_copy(update={"uri": f"{tmp_path}/empty"})}
    )
    with pytest.raises(JobError, match="holds no release yet"):
        draw_examples(config, "webdataset")
