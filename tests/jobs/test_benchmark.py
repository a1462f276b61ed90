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


def test_the_floor_is_what_network_and_codec_do_alone_and_few_photos_have_people(tmp_path: Path) -> None:
    photos = [tmp_path / f"{number}.jpg" for number in range(6)]
    empty = BENCHMARK.few_faces(photos, tmp_path / "empty")
    assert [file in photos for file in empty] == [True, False, False, False, False, True]
    assert BENCHMARK.bare(empty[1:5], "f32") > 0


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


def test_drawn_people_are_as_far_apart_as_both_recognizers_put_them() -> None:
    person = PRIVACY.person_of_each(3000, 5)
    assert 3000 / 5 * 0.9 < person[-1] + 1 < 3000 / 5 * 1.1
    vectors = PRIVACY.drawn(person, 0)
    similarity, same = vectors @ vectors.T, person[:, None] == person
    assert np.mean(similarity[~same]) == pytest.approx(0.85 * 0.8 * 0.96 + 0.15 * 0.1 * 0.75, abs=0.02)
    np.fill_diagonal(same, False)
    assert np.mean(similarity[same]) == pytest.approx(0.85 * 0.96 + 0.15 * 0.75, abs=0.01)


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
