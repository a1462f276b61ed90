"""Claims about the TF.js converter, against numbers worked out in TensorFlow's own layout.

That whole networks say what TF.js says of them is held by the stored answers (test_golden_outputs.py).
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.models.convert.graph import read_onnx
from anonlib.models.convert.tfjs import convert_graph, read_graph_model
from anonlib.models.runtime import load_engine


def text(value: str) -> dict[str, str]:
    return {"s": base64.b64encode(value.encode()).decode()}


def ints(*values: int) -> dict[str, Any]:
    return {"list": {"i": [str(v) for v in values]}}


def converted(
    image: np.ndarray, node: dict[str, Any], weights: dict[str, np.ndarray], shape: tuple[int, ...], *before: Any
) -> Any:
    """The answer of a node, after others, over an image (n, h, w, c), in TensorFlow's layout."""
    dims = {"dim": [{"size": str(size)} for size in (-1, *image.shape[1:])]}
    nodes = [{"op": "Placeholder", "name": "x", "attr": {"shape": {"shape": dims}}}, *before, {"name": "out", **node}]
    entries = [
        {"name": name, "shape": list(array.shape), "dtype": "int32" if array.dtype == np.int32 else "float32"}
        for name, array in weights.items()
    ]
    data = b"".join(array.tobytes() for array in weights.values())
    manifest = [{"paths": ["a.bin", "b.bin"], "weights": entries}]
    document = json.dumps({"modelTopology": {"node": nodes}, "weightsManifest": manifest}).encode()
    files = {"a.bin": data[:10], "b.bin": data[10:]}
    onnx = convert_graph("net", *read_graph_model(document, files), start="x", outputs={"out": ("answer", shape)})
    assert "Transpose" not in {n.op for n in read_onnx(onnx, "net").nodes}
    (answer,) = load_engine(onnx, backend="onnxruntime")(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))
    return answer.transpose(0, 2, 3, 1) if answer.ndim == 4 else answer


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["SAME", "VALID"]), st.integers(1, 3), st.sampled_from([1, 2]), st.booleans(), st.integers(0, 99)
)
def test_a_convolution_pads_and_strides_as_tensorflow_does(
    padding: str, size: int, stride: int, depthwise: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    image = random.normal(size=(2, *random.integers(5, 9, 2), 3)).astype(np.float32)
    kernel = random.normal(size=(size, size, 3, 1 if depthwise else 4)).astype(np.float32)
    bias, slope = (random.normal(size=kernel.shape[3]).astype(np.float32) for _ in range(2))
    sides = image.shape[1:3]
    out = [-(-s // stride) if padding == "SAME" else (s - size) // stride + 1 for s in sides]
    missing = [max((o - 1) * stride + size - s, 0) for o, s in zip(out, sides, strict=True)]
    padded = np.pad(image, [(0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    attr = {"strides": ints(1, stride, stride, 1), "padding": text(padding)}
    if depthwise:
        wanted = np.einsum("nhwckl,klc->nhwc", windows, kernel[..., 0])
        node = {"op": "DepthwiseConv2dNative", "input": ["x", "k"], "attr": attr}
        weights = {"k": kernel}
    else:
        wanted = np.einsum("nhwckl,klco->nhwo", windows, kernel) + bias
        wanted = np.where(wanted > 0, wanted, wanted * slope)
        fused = {"fused_ops": {"list": {"s": [text(op)["s"] for op in ("BiasAdd", "Prelu")]}}}
        node = {"op": "_FusedConv2D", "input": ["x", "k", "b", "s"], "attr": attr | fused}
        weights = {"k": kernel, "b": bias, "s": slope}
    answer = converted(image, node, weights, (wanted.shape[3], *wanted.shape[1:3]))
    assert np.allclose(answer, wanted, atol=1e-5)


def test_what_is_pooled_and_flattened_meets_its_weights_in_tensorflows_order() -> None:
    random = np.random.default_rng(0)
    image = random.normal(size=(2, 6, 4, 3)).astype(np.float32)
    weights = {"w": random.normal(size=(18, 7)).astype(np.float32), "b": random.normal(size=7).astype(np.float32)}
    shape = {"s": np.array([-1, 18], dtype=np.int32)}
    windows = {"ksize": ints(1, 2, 2, 1), "strides": ints(1, 2, 2, 1), "padding": text("VALID")}
    pool = {"op": "MaxPool", "name": "pool", "input": ["x"], "attr": windows}
    flat = {"op": "Reshape", "name": "flat", "input": ["pool", "s"], "attr": {}}
    attr = {"fused_ops": {"list": {"s": [text("BiasAdd")["s"]]}}}
    product = {"op": "_FusedMatMul", "input": ["flat", "w", "b"], "attr": attr}
    answer = converted(image, product, weights | shape, (7,), pool, flat)
    pooled = image.reshape(2, 3, 2, 2, 2, 3).max(axis=(2, 4))
    assert np.allclose(answer, pooled.reshape(2, -1) @ weights["w"] + weights["b"], atol=1e-4)


def test_branches_are_joined_by_channel_and_a_vector_is_normalised() -> None:
    random = np.random.default_rng(0)
    image = random.normal(size=(2, 4, 4, 3)).astype(np.float32)
    gain, shift, mean, spread = np.abs(random.normal(size=(4, 6))).astype(np.float32)
    weights = {"g": gain, "b": shift, "m": mean, "v": spread, "axis": np.array(3, np.int32)}
    weights |= {"flat": np.array([-1, 6], np.int32), "4d": np.array([-1, 1, 1, 6], np.int32)}
    windows = {"ksize": ints(1, 4, 4, 1), "strides": ints(1, 1, 1, 1), "padding": text("VALID")}
    nodes = [
        {"op": "Relu", "name": "up", "input": ["x"]},
        {"op": "ConcatV2", "name": "both", "input": ["x", "up", "axis"]},
        {"op": "AvgPool", "name": "pool", "input": ["both"], "attr": windows},
        {"op": "Reshape", "name": "row", "input": ["pool", "flat"]},
        {"op": "Reshape", "name": "point", "input": ["row", "4d"]},
    ]
    norm = {"op": "FusedBatchNorm", "input": ["point", "g", "b", "m", "v"], "attr": {"epsilon": {"f": 0.5}}}
    both = np.concatenate([image, np.maximum(image, 0)], axis=3).mean(axis=(1, 2))
    wanted = (both - mean) / np.sqrt(spread + 0.5) * gain + shift
    assert np.allclose(converted(image, norm, weights, (6,), *nodes), wanted, atol=1e-5)
