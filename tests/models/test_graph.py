"""A graph keeps its bytes, folds into fewer nodes with the same answer, and has a torch twin that has gradients.

That the twin gives the same answers is held by test_golden_outputs.py.
"""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anonlib.errors import ModelError
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MODELS
from anonlib.models.convert.graph import OPSET, Graph, read_onnx, simplify
from anonlib.models.runtime import load_engine
from anonlib.models.torch_graph import TorchGraph


@pytest.mark.parametrize("name", ["dlib-resnet", "mobileface"])
def test_a_step_along_the_gradient_moves_an_embedding_where_it_should(name: str) -> None:
    module = TorchGraph(model_bytes(name))
    torch.manual_seed(1)
    image = torch.nn.functional.interpolate(torch.randn(2, 3, 12, 12), size=MODELS[name].input.size, mode="bilinear")
    target = module(image[1:])[0].detach()
    moving = image[:1].clone().requires_grad_()
    before = torch.cosine_similarity(module(moving)[0], target)
    (gradient,) = torch.autograd.grad(before.sum(), moving)
    assert torch.isfinite(gradient).all()
    after = torch.cosine_similarity(module(moving + 0.02 * gradient.sign())[0], target)
    assert after > before


def one_node(op: str, shape: list[int], numbers: dict[str, list[int]]) -> bytes:
    graph = Graph("g", {"x": ("N", 2, 5, 6)})
    names = [graph.const(np.array(values), name) for name, values in numbers.items()]
    graph.outputs[graph.add(op, "x", *names)] = ("N", *shape)
    return graph.to_bytes()


def test_an_operator_that_it_does_not_know_is_named() -> None:
    with pytest.raises(ModelError, match="torch backend does not know the operator Min"):
        TorchGraph(one_node("Min", [2, 5, 6], {}))


@pytest.mark.parametrize(
    ("op", "numbers", "shape"),
    [
        ("Slice", {"starts": [1, 0], "stops": [3, 4], "axes": [2, 3]}, [2, 2, 4]),
        ("Pad", {"amounts": [0, 1, 2, 0, 0, 0, 1, 3]}, [3, 8, 9]),
    ],
)
def test_a_value_is_cut_and_padded_as_onnx_has_it(op: str, numbers: dict[str, list[int]], shape: list[int]) -> None:
    data = one_node(op, shape, numbers)
    x = np.random.default_rng(0).random((2, 2, 5, 6)).astype(np.float32)
    (wanted,) = load_engine(data, backend="onnxruntime")(x)
    assert np.array_equal(TorchGraph(data)(torch.from_numpy(x))[0].numpy(), wanted)


# ---- folding ----------------------------------------------------------------------------------------------------


def start(*shape: int) -> Graph:
    return Graph("g", {"image": ("N", *(shape or (4, 6, 6)))})


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def same_answer(graph: Graph, value: str, shape: tuple[int, ...], expected_ops: list[str]) -> None:
    graph.outputs[value] = ("N", *shape)
    before = copy.deepcopy(graph).to_bytes()
    after = simplify(graph)
    assert [n.op for n in after.nodes] == expected_ops
    x = np.random.default_rng(1).normal(size=(3, *graph.inputs["image"][1:])).astype(np.float32)
    (a,), (b,) = load_engine(before, backend="onnxruntime")(x), load_engine(after.to_bytes(), backend="onnxruntime")(x)
    assert np.allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(a).max())


def test_a_pruned_graph_gives_the_same_bytes_and_they_read_back() -> None:
    graph = start()
    conv = graph.conv("image", normal(0, 2, 4, 1, 1), None, 1, [0] * 4)
    graph.add("Add", conv, graph.const(np.zeros(5, dtype=np.float32)))
    graph.outputs[graph.add("Relu", conv)] = ("N", 2, 6, 6)
    graph.rename(conv, "features")
    graph.prune()
    assert [n.op for n in graph.nodes] == ["Conv", "Relu"] and graph.nodes[1].inputs == ["features"]
    assert len(graph.constants) == 1
    data = graph.to_bytes()
    assert data == graph.to_bytes() == read_onnx(data, "g").to_bytes()
    assert onnx.load_model_from_string(data).opset_import[0].version == OPSET


@settings(max_examples=15, deadline=None)
@given(group=st.sampled_from([1, 2, 4]), transposed=st.booleans(), bias=st.booleans(), seed=st.integers(0, 99))
def test_a_batch_norm_folds_into_any_convolution(group: int, transposed: bool, bias: bool, seed: int) -> None:
    graph = start()
    shape = (4, 8 // group, 3, 3) if transposed else (8, 4 // group, 3, 3)
    names = [graph.const(normal(seed, *shape))] + ([graph.const(normal(seed + 1, 8))] if bias else [])
    op = "ConvTranspose" if transposed else "Conv"
    value = graph.add(op, "image", *names, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1], group=group)
    parts = [normal(seed + i, 8) for i in (2, 3, 4)] + [np.abs(normal(seed + 5, 8)) + 0.1]
    value = graph.add("BatchNormalization", value, *(graph.const(p) for p in parts), epsilon=1e-3)
    same_answer(graph, value, (8, 6, 6), [op, "BatchNormalization"] if transposed and group > 1 else [op])


def test_a_shift_that_is_not_per_channel_and_a_value_that_is_read_twice_stay() -> None:
    graph = start()
    conv = graph.conv("image", normal(0, 8, 4, 1, 1), None, 1, [0] * 4)
    scaled = graph.add("Mul", conv, graph.const(normal(1, 8, 1, 1)))
    value = graph.add("Add", graph.add("Add", conv, scaled), graph.const(normal(1, 1, 1, 6, 6)))
    same_answer(graph, value, (8, 6, 6), ["Conv", "Mul", "Add", "Add"])
