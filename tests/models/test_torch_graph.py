"""Claims about the torch twin of a graph. That it says the same is held by test_models_answers.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from anonlib.errors import ModelError
from anonlib.models.cache import model_bytes
from anonlib.models.catalog import MODELS
from anonlib.models.runtime import load_engine
from anonlib.models.torch_graph import TorchGraph

RECOGNIZERS = [n for n, m in MODELS.items() if m.role == "recognizer"]


@pytest.mark.parametrize("name", RECOGNIZERS)
def test_a_step_along_the_gradient_moves_an_embedding_where_it_should(name: str) -> None:
    module = TorchGraph(model_bytes(name))
    torch.manual_seed(1)
    height, width = MODELS[name].input.size
    image = torch.nn.functional.interpolate(torch.randn(2, 3, 12, 12), size=(height, width), mode="bilinear")
    target = module(image[1:])[0].detach()
    moving = image[:1].clone().requires_grad_()
    before = torch.cosine_similarity(module(moving)[0], target)
    (gradient,) = torch.autograd.grad(before.sum(), moving)
    assert torch.isfinite(gradient).all()
    after = torch.cosine_similarity(module(moving + 0.02 * gradient.sign())[0], target)
    assert after > before


def test_weights_move_with_the_module_and_are_not_trained() -> None:
    module = TorchGraph(model_bytes("expression"))
    assert not list(module.parameters())
    assert module.double()(torch.zeros(1, 3, 112, 112, dtype=torch.float64))[0].dtype == torch.float64
    assert module.output_names == ("expression",)


def test_an_operator_that_it_does_not_know_is_named() -> None:
    graph = helper.make_graph(
        [helper.make_node("Min", ["x", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    with pytest.raises(ModelError, match="torch backend does not know the operator Min"):
        TorchGraph(data)


@pytest.mark.parametrize(
    ("op", "attrs", "said"),
    [
        ("AveragePool", {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1]}, "without padding"),
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1]}, None),
    ],
)
def test_uneven_padding_is_done_or_refused(op: str, attrs: dict, said: str | None) -> None:
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], **attrs)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, "h", "w"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = -1 - np.random.default_rng(0).random((2, 2, 5, 5)).astype(np.float32)
    if said:
        with pytest.raises(ModelError, match=said):
            TorchGraph(model.SerializeToString())(torch.from_numpy(x))
        return
    (wanted,) = load_engine(model.SerializeToString(), backend="onnxruntime")(x)
    assert np.array_equal(TorchGraph(model.SerializeToString())(torch.from_numpy(x))[0].numpy(), wanted)


def test_a_slice_is_cut_as_onnx_has_it() -> None:
    cuts = {"starts": [1, 0], "stops": [3, 4], "axes": [2, 3]}
    graph = helper.make_graph(
        [helper.make_node("Slice", ["x", *cuts], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 5, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, 2, 4])],
        [helper.make_tensor(name, TensorProto.INT64, [2], values) for name, values in cuts.items()],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    x = np.random.default_rng(0).random((2, 2, 5, 6)).astype(np.float32)
    assert np.array_equal(TorchGraph(data)(torch.from_numpy(x))[0].numpy(), x[:, :, 1:3, 0:4])
    assert np.array_equal(load_engine(data, backend="onnxruntime")(x)[0], x[:, :, 1:3, 0:4])
