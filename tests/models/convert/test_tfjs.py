"""Claims about the TF.js converter, against a plain numpy evaluation of the same graph in TensorFlow's layout."""

from __future__ import annotations

import base64
import json

import numpy as np

from anonlib.models.convert.graph import read_onnx
from anonlib.models.convert.tfjs import convert_graph, read_weights
from anonlib.models.runtime import load_engine

RNG = np.random.default_rng(3)


class Writer:
    """Writes a TF.js graph model and evaluates it at the same time, in NHWC and float64."""

    def __init__(self, image: np.ndarray) -> None:
        self.nodes: list[dict] = []
        self.weights: list[dict] = []
        self.data = b""
        self.values = {"x": image.astype(np.float64)}
        shape = {"dim": [{"size": str(s)} for s in (-1, *image.shape[1:])]}
        self.node("Placeholder", "x", [], {"shape": {"shape": shape}})

    def node(self, op: str, name: str, inputs: list[str], attr: dict, value: np.ndarray | None = None) -> str:
        self.nodes.append({"op": op, "name": name, "input": inputs, "attr": attr})
        if value is not None:
            self.values[name] = value
        return name

    def weight(self, name: str, array: np.ndarray, quantization: dict | None = None) -> str:
        stored, entry = array, {"name": name, "shape": list(array.shape), "dtype": "float32"}
        if array.dtype == np.int32:
            entry["dtype"] = "int32"
        elif quantization:
            entry["quantization"] = quantization
            stored = array.astype(quantization["dtype"])
            scale = quantization.get("scale")
            array = stored * scale + quantization["min"] if scale else stored
        self.weights.append(entry)
        self.data += stored.tobytes()
        self.values[name] = array.astype(np.float64)
        return self.node("Const", name, [], {})

    def files(self) -> tuple[bytes, dict[str, bytes]]:
        manifest = [{"paths": ["a.bin", "b.bin"], "weights": self.weights}]
        document = {"modelTopology": {"node": self.nodes}, "weightsManifest": manifest}
        return json.dumps(document).encode(), {"a.bin": self.data[:10], "b.bin": self.data[10:]}

    def window(self, op: str, name: str, x: str, kernel: str, stride: int, padding: str, fused: tuple = ()) -> str:
        """A convolution with its fused bias, PReLU or ReLU, as loops over the window."""
        image, weight = self.values[x], self.values[kernel]
        kh, kw = weight.shape[:2]
        size = image.shape[1:3]
        if padding == "SAME":
            out = [-(-s // stride) for s in size]
            total = [max((o - 1) * stride + k - s, 0) for o, k, s in zip(out, (kh, kw), size, strict=True)]
            image = np.pad(image, [(0, 0), *((t // 2, t - t // 2) for t in total), (0, 0)])
        else:
            out = [(s - k) // stride + 1 for s, k in zip(size, (kh, kw), strict=True)]
        depthwise = op.startswith("Depthwise")
        result = 0.0
        for i in range(kh):
            for j in range(kw):
                view = image[:, i : i + stride * out[0] : stride, j : j + stride * out[1] : stride][
                    :, : out[0], : out[1]
                ]
                result = result + (view * weight[i, j, :, 0] if depthwise else view @ weight[i, j])
        names = [x, kernel]
        for kind, operand in fused:
            names += [operand] if operand else []
            if kind == "BiasAdd":
                result = result + self.values[operand]
            elif kind == "Prelu":
                result = np.where(result > 0, result, result * self.values[operand])
            else:
                result = np.maximum(result, 0)
        attr = {
            "strides": ints(1, stride, stride, 1),
            "dilations": ints(1, 1, 1, 1),
            "padding": text(padding),
            "data_format": text("NHWC"),
            "fused_ops": {"list": {"s": [text(k)["s"] for k, _ in fused]}},
        }
        return self.node(op, name, names, attr, result)


def text(value: str) -> dict:
    return {"s": base64.b64encode(value.encode()).decode()}


def ints(*values: int) -> dict:
    return {"list": {"i": [str(v) for v in values]}}


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def network(image: np.ndarray) -> Writer:
    """Every operator and every padding that the catalogue's graphs hold, in one net of eight layers."""
    w = Writer(image)
    w.weight("shift", normal(3))
    w.node("Sub", "centred", ["x", "shift"], {}, w.values["x"] - w.values["shift"])
    kernel = w.weight("k1", RNG.integers(0, 255, (3, 3, 3, 6)), {"dtype": "uint8", "scale": 0.01, "min": -1.27})
    bias, slope = w.weight("b1", normal(6)), w.weight("s1", normal(1, 1, 6), {"dtype": "float16"})
    w.window("_FusedConv2D", "one", "centred", kernel, 2, "SAME", (("BiasAdd", bias), ("Prelu", slope)))
    w.window("DepthwiseConv2dNative", "two", "one", w.weight("k2", normal(3, 3, 6, 1)), 1, "SAME")
    w.weight("scale", normal(6))
    w.node("Mul", "three", ["two", "scale"], {}, w.values["two"] * w.values["scale"])
    w.node("AddV2", "four", ["three", "one"], {}, w.values["three"] + w.values["one"])
    v = w.values["four"]
    pooled = np.max([v[:, i::2, j::2][:, :3, :4] for i in (0, 1) for j in (0, 1)], axis=0)
    window = {"ksize": ints(1, 2, 2, 1), "strides": ints(1, 2, 2, 1), "padding": text("VALID")}
    w.node("MaxPool", "five", ["four"], window, pooled)
    pads = w.weight("pads", np.array([[0, 0], [1, 1], [0, 2], [0, 2]], dtype=np.int32))
    w.node("Pad", "six", ["five", pads], {}, np.pad(pooled, [(0, 0), (1, 1), (0, 2), (0, 2)]))
    relu = np.maximum(w.values["six"], 0)
    w.node("Relu", "seven", ["six"], {}, relu)
    w.weight("high", np.array(1, dtype=np.float32))
    w.node("Minimum", "eight", ["seven", "high"], {}, np.minimum(relu, 1))
    w.weight("shape", np.array([-1, 5 * 6 * 8], dtype=np.int32))
    flat = w.node("Reshape", "flat", ["eight", "shape"], {}, w.values["eight"].reshape(len(image), -1))
    dense, bias = w.weight("dense", normal(5 * 6 * 8, 7)), w.weight("b2", normal(7))
    logits = w.values[flat] @ w.values[dense] + w.values[bias]
    attr = {
        "transpose_a": {"b": False},
        "transpose_b": {"b": False},
        "fused_ops": {"list": {"s": [text("BiasAdd")["s"]]}},
    }
    w.node("_FusedMatMul", "logits", [flat, dense, bias], attr, logits)
    e = np.exp(logits - logits.max(1, keepdims=True))
    w.node("Softmax", "chance", ["logits"], {}, e / e.sum(1, keepdims=True))
    axes = w.weight("axes", np.array([1, 2], dtype=np.int32))
    w.node("Mean", "mean", ["eight", axes], {}, w.values["eight"].mean((1, 2)))
    w.node("Sigmoid", "gate", ["mean"], {}, 1 / (1 + np.exp(-w.values["mean"])))
    w.node("Identity", "out", ["gate"], {}, w.values["gate"])
    return w


def test_a_converted_graph_says_what_the_graph_says() -> None:
    image = normal(2, 12, 16, 3)
    writer = network(image)
    ends = {"out": ("gate", (8,)), "chance": ("chance", (7,)), "mean": ("folded", (2, 4))}
    data = convert_graph("net", *writer.files(), start="x", outputs=ends)
    outputs = load_engine(data, backend="onnxruntime")(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))
    for (name, (_, shape)), got in zip(ends.items(), outputs, strict=True):
        assert got.shape == (2, *shape)
        assert np.allclose(got.reshape(2, -1), writer.values[name], atol=2e-5)
    assert "Transpose" not in {n.op for n in read_onnx(data, "net").nodes}


def test_the_input_may_be_a_value_after_the_graphs_own_normalisation() -> None:
    writer = network(normal(2, 12, 16, 3))
    data = convert_graph("net", *writer.files(), start="centred", outputs={"mean": ("mean", (8,))})
    centred = writer.values["centred"].transpose(0, 3, 1, 2).astype(np.float32)
    (got,) = load_engine(data, backend="onnxruntime")(np.ascontiguousarray(centred))
    assert np.allclose(got, writer.values["mean"], atol=2e-5)


def test_quantized_weights_span_their_range() -> None:
    entry = {"name": "w", "shape": [2], "dtype": "float32", "quantization": {"dtype": "uint8", "scale": 2, "min": -3}}
    weights = read_weights([{"paths": ["f"], "weights": [entry]}], {"f": bytes([0, 255])})
    assert weights["w"].tolist() == [-3, 507]
