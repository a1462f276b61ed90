"""The benchmarks divide within a round, count faces once and draw known people; how fast they are is no test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from tests.support.jobs import JOBS, script

BENCHMARK, PRIVACY = script("benchmark"), script("benchmark_privacy")


def test_ratios_are_medians_of_pairs_against_the_better_backend() -> None:
    rounds = [
        {
            "deface, onnxrt": {"images_s": 5},
            "deface, opencv": {"images_s": opencv},
            "anonlib, Ray, f32": {"images_s": ray, "images_s_ray_running": 2 * ray},
            "anonlib, serial, f32": {"images_s": serial},
            "floor, f32": {"images_s": 60},
        }
        for opencv, ray, serial in ((10, 30, 20), (1, 4, 1), (20, 60, 10))
    ]
    assert BENCHMARK.rates(rounds)["anonlib, Ray, f32"] == 30
    ratios = BENCHMARK.ratios(rounds)
    assert ratios["anonlib, Ray, f32 / deface, opencv"] == (3, 3, 4)
    assert ratios["anonlib, serial, f32 / deface, opencv"] == (0.5, 1, 2)
    assert ratios["anonlib, Ray already running, f32 / deface, opencv"] == (6, 6, 8)
    assert ratios["anonlib, Ray, f32 / floor, f32"] == (4 / 60, 0.5, 1)


def test_a_face_has_one_partner_at_most() -> None:
    box = (0, 0, 10, 10)
    assert BENCHMARK.in_both({"a": [box, box], "b": [box]}, {"a": [(1, 0, 11, 10, 0.9)], "c": [box]}) == 1
    assert BENCHMARK.in_both({"a": [box]}, {"a": [(9, 9, 19, 19, 0.9)]}) == 0
    assert BENCHMARK.in_both({"a": [box]}, {"a": [(0, 0, 10, 20)]}) == 1
    assert BENCHMARK.in_both({"a": [box], "b": []}, {"a": [], "b": [box]}) == 0


def test_a_tiny_job_tells_its_stages_and_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BENCHMARK, "ROOT", tmp_path)
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(simplejpeg.encode_jpeg(np.full((48, 64, 3), 90, np.uint8)))
    told = BENCHMARK.anonlib_job([photo], 3, "solid", 0, look=True)
    assert told["no_face"] == told["images"] == 3
    assert set(told["stages"]) == {"redact"}
    assert told["peak_pss_mib"] > 10
    assert json.dumps(told)


def test_a_plan_finds_the_people_as_drawn() -> None:
    command = [sys.executable, str(JOBS / "benchmark_privacy.py"), "--faces", "400", "1200"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| BCubed F | 1.0000 | 1.0000 |" in done.stdout
    assert "| people in several subjects | 0 | 0 |" in done.stdout


def test_a_network_s_arithmetic_is_counted() -> None:
    import onnx
    from onnx import TensorProto, helper

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return helper.make_tensor(name, TensorProto.FLOAT, shape, np.ones(shape, np.float32).ravel())

    nodes = [
        helper.make_node("Conv", ["in", "kernel"], ["seen"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["seen"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "matrix"], ["out"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("in", ["n", 3, "h", "w"]), ("out", ["n", 7]))
    ]
    graph = helper.make_graph(nodes, "toy", ends[:1], ends[1:], [weight("kernel", 5, 3, 3, 3), weight("matrix", 5, 7)])
    counted = script("benchmark_gpu").flops(helper.make_model(graph).SerializeToString(), (3, 16, 32))
    assert counted == 2 * (3 * 9 * 5 * 8 * 16 + 5 * 7)


def test_a_network_that_is_rounded_after_every_operation_answers_nearly_the_same() -> None:
    precision = script("evaluate_precision")
    crops = np.random.default_rng(0).normal(size=(2, 3, 112, 112)).astype(np.float32)
    (single,), (half,) = precision.in_f32("expression")(crops), precision.emulated("expression")(crops)
    assert single.shape == half.shape and not np.array_equal(single, half)
    assert np.abs(single - half).max() < 0.05
