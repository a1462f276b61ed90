"""Small ONNX files with the interfaces of insightface's packs, for every test that needs a user's own models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save(
    path: Path,
    nodes: list,
    outputs: dict[str, list],
    weights: dict[str, np.ndarray],
    shape: list,
    more: dict[str, list] | None = None,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "pack",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in {"input.1": shape, **(more or {})}.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def arcface(path: Path, batch: int | str) -> Path:
    """ArcFace's interface: (batch, 3, 112, 112) -> (batch, 512); here the mean colours times a matrix."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["input.1"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["683"]),
    ]
    weights = {"w": np.random.default_rng(0).normal(size=(3, 512)).astype(np.float32)}
    return save(path, nodes, {"683": [batch, 512]}, weights, [batch, 3, 112, 112])


def swapper(path: Path, emap: bool = True) -> Path:
    """inswapper's interface; the answer is a colour that the mapped identity decides, speckles, and 5 % of the face."""
    nodes = [
        helper.make_node("MatMul", ["source", "w"], ["raw"]),
        helper.make_node("Sigmoid", ["raw"], ["bounded"]),
        helper.make_node("Reshape", ["bounded", "plane"], ["colour"]),
        helper.make_node("Mul", ["colour", "most"], ["new"]),
        helper.make_node("Mul", ["input.1", "rest"], ["old"]),
        helper.make_node("Add", ["new", "old"], ["both"]),
        helper.make_node("Add", ["both", "speckles"], ["output"]),
    ]
    random = np.random.default_rng(1)
    weights: dict[str, np.ndarray] = {
        "w": 20 * random.standard_normal((512, 3)).astype(np.float32),
        "plane": np.array([1, 3, 1, 1], np.int64),
        "most": np.array([0.5], np.float32),
        "rest": np.array([0.05], np.float32),
        "speckles": random.uniform(0, 0.45, (1, 3, 8, 8)).repeat(16, axis=2).repeat(16, axis=3).astype(np.float32),
    }
    if emap:
        weights["emap"] = random.standard_normal((512, 512)).astype(np.float32)
    size = [1, 3, 128, 128]
    return save(path, nodes, {"output": size}, weights, size, {"source": [1, 512]})


def scrfd(path: Path, landmarks: bool = True, size: tuple[int | str, int | str] = ("height", "width")) -> Path:
    """SCRFD's interface: outputs at strides 8, 16, 32, two anchors a cell. A cell of 32 px that is all red is a face.

    At stride 32 the score is the mean of red; box and landmarks are constants in units of the stride.
    """
    nodes, outputs, weights = [], {}, {}
    box = np.array([1, 1, 1, 2], np.float32)
    five = np.array([-0.5, -0.5, 0.5, -0.5, 0, 0, -0.4, 0.5, 0.4, 0.5], np.float32)
    for stride in (8, 16, 32):
        pick = np.zeros((2, 3, 1, 1), np.float32)
        pick[0, 0] = 1.0 if stride == 32 else 0.0
        weights[f"pick{stride}"] = pick
        s = str(stride)
        nodes += [
            helper.make_node("AveragePool", ["input.1"], [f"p{s}"], kernel_shape=[stride] * 2, strides=[stride] * 2),
            helper.make_node("Conv", [f"p{s}", f"pick{s}"], [f"c{s}"], kernel_shape=[1, 1]),
            helper.make_node("Transpose", [f"c{s}"], [f"t{s}"], perm=[2, 3, 0, 1]),
            helper.make_node("Reshape", [f"t{s}", "column"], [f"score{s}"]),
        ]
        for kind, values in (("box", box), ("five", five)):
            weights[f"{kind}{s}v"] = values[None]
            nodes += [
                helper.make_node("Mul", [f"score{s}", "zero"], [f"{kind}{s}z"]),
                helper.make_node("Add", [f"{kind}{s}z", f"{kind}{s}v"], [f"{kind}{s}"]),
            ]
    weights |= {"column": np.array([-1, 1], np.int64), "zero": np.zeros(1, np.float32)}
    for kind, width in (("score", 1), ("box", 4), *([("five", 10)] if landmarks else [])):
        outputs |= {f"{kind}{stride}": [f"n{kind}{stride}", width] for stride in (8, 16, 32)}
    return save(path, nodes, outputs, weights, [1, 3, *size])


def yolo(path: Path, layout: str = "v8", licence: str = "", size: tuple[int, int] = (320, 640)) -> Path:
    """YOLO's interface in one of its layouts, v8, v5 or end: a cell of 32 px that is all red is a plate of 48 x 40 px.

    v5 says everything six times, since real ones have thousands of rows.
    """
    rows, columns = size[0] // 32, size[1] // 32
    cells = rows * columns
    x, y = (np.arange(columns) * 32 + 16).tolist() * rows, np.repeat(np.arange(rows) * 32 + 16, columns)
    x = np.array(x)
    sides = [x - 24, y - 20, x + 24, y + 20] if layout == "end" else [x, y, np.full(cells, 48), np.full(cells, 40)]
    weights = {
        "pick": np.array([1, -1, 0], np.float32).reshape(1, 3, 1, 1),
        "sides": np.stack(sides)[None].astype(np.float32),
        "flat": np.array([1, 1, cells], np.int64),
        "one": np.full((1, 1, cells), layout == "v5", np.float32),
    }
    parts = ["sides", "score", *(["one"] if layout in ("v5", "end") else [])]
    nodes = [
        helper.make_node("AveragePool", ["images"], ["mean"], kernel_shape=[32, 32], strides=[32, 32]),
        helper.make_node("Conv", ["mean", "pick"], ["map"], kernel_shape=[1, 1]),
        helper.make_node("Reshape", ["map", "flat"], ["score"]),
        helper.make_node("Concat", parts, ["once"], axis=1),
        helper.make_node("Concat", ["once"] * (6 if layout == "v5" else 1), ["turned"], axis=2),
        helper.make_node("Transpose", ["turned"], ["output0"], perm=[0, 1, 2] if layout == "v8" else [0, 2, 1]),
    ]
    cells *= 6 if layout == "v5" else 1
    shape = [1, len(parts) + 3, cells] if layout == "v8" else [1, cells, len(parts) + 3]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, *size])]
    outputs = [helper.make_tensor_value_info("output0", TensorProto.FLOAT, shape)]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "yolo", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, {"license": licence})
    path.write_bytes(model.SerializeToString())
    return path
