"""A graph keeps its bytes, folds into fewer nodes with the same answer, and has a torch twin that has gradients.

That the twin gives the same answers is held by test_golden_outputs.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anonlib.errors import ModelError
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MODELS
from anonlib.models.convert.graph import Graph
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
