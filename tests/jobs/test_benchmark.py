"""The benchmark divides within a round, counts faces once, and its jobs run; how fast they are is no test."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image

JOBS = Path(__file__).parents[2] / "jobs"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    """jobs/benchmark.py, which finds its neighbours as a script does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(JOBS))
        yield _load("benchmark")


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, JOBS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


def one_round(onnxrt: float, opencv: float, ray: float, serial: float) -> dict[str, dict[str, float]]:
    return {
        "deface, onnxrt": {"images_s": onnxrt},
        "deface, opencv": {"images_s": opencv},
        "anonlib, Ray": {"images_s": ray, "images_s_ray_running": 2 * ray},
        "anonlib, serial": {"images_s": serial},
    }


def test_ratios_are_medians_of_pairs_against_the_better_backend(benchmark: Any) -> None:
    rounds = [one_round(5, 10, 30, 20), one_round(5, 1, 4, 1), one_round(5, 20, 60, 10)]
    assert benchmark.rates(rounds)["anonlib, Ray"] == 30
    assert benchmark.ratios(rounds) == {
        "anonlib, Ray / deface, opencv": 3,
        "anonlib, serial / deface, opencv": 1,
        "anonlib, Ray already running / deface, opencv": 6,
    }


def test_a_face_has_one_partner_at_most(benchmark: Any) -> None:
    box = (0, 0, 10, 10)
    assert benchmark.in_both({"a": [box, box], "b": [box]}, {"a": [(1, 0, 11, 10, 0.9)], "c": [box]}) == 1
    assert benchmark.in_both({"a": [box]}, {"a": [(9, 9, 19, 19, 0.9)]}) == 0
    assert benchmark.overlap(box, (0, 0, 10, 20)) == 0.5


def test_memory_counts_this_process_and_its_children(benchmark: Any) -> None:
    process = sys.modules["benchmark_process"]
    assert process.tree(os.getpid())[0] == os.getpid()
    rss, pss = process.memory(os.getpid())
    assert rss >= pss > 1


def test_given_photos_are_the_jpegs_of_the_commonest_size(benchmark: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number, (height, width) in enumerate([(40, 60), (40, 60), (30, 30)]):
        Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(source / f"{number}.jpg")
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(source / "other.png")
    photos = benchmark.given_photos([source], tmp_path / "kept", 9)
    assert (len(photos.files), photos.width, photos.height) == (2, 60, 40)
    assert benchmark.detector_size(photos) == (60, 40)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="no JPEG"):
        benchmark.given_photos([tmp_path / "nothing"], tmp_path / "kept", 9)


def test_a_tiny_job_tells_its_stages_and_its_memory(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "ROOT", tmp_path)
    monkeypatch.setattr(benchmark, "LOG", tmp_path / "last.log")
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(simplejpeg.encode_jpeg(np.full((48, 64, 3), 90, np.uint8)))
    told = benchmark.anonlib_job(benchmark.Photos((photo,), 64, 48), 3, "solid", 0, look=True)
    assert told["no_face"] == told["images"] == 3
    assert set(told["stages"]) == {"start of Ray", "open", "scan", "plan", "surrogates", "render"}
    assert told["peak_rss_mib"] >= told["peak_pss_mib"] > 0
    assert json.dumps(told)
