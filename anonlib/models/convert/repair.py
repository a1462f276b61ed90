"""Repairs what is wrong with the ONNX files that the packages carry, before anything runs them.

Every fault here was met, and each of them is silent: a batch norm listed as a graph input keeps runtimes
from folding it (33 ms instead of 18 for the detector); a batch axis fixed in a Reshape mixes the faces of a
batch; a fixed image size refuses every other size. So a repaired model has one float32 input with a free
batch axis, named outputs, opset 17, and nothing left to fold.
"""

from __future__ import annotations

from collections.abc import Mapping

from anonlib.errors import ModelError
from anonlib.models.convert.fold import simplify
from anonlib.models.convert.graph import Dims, Graph, Value, read_onnx


def repair(name: str, data: bytes, size: tuple[int | str, int | str], outputs: Mapping[str, tuple[str, Dims]]) -> Graph:
    """ONNX bytes -> a repaired graph with input "image" (N, 3, *size).

    `outputs` maps each output of the file to its new name and its shape without the batch axis. Raises
    ModelError if the file has other ends than these.
    """
    graph = read_onnx(data, name)
    if len(graph.inputs) != 1 or {v.name for v in graph.outputs} != set(outputs):
        raise ModelError(
            f"The model {name} has inputs {[v.name for v in graph.inputs]} and outputs "
            f"{[v.name for v in graph.outputs]}; one input and the outputs {sorted(outputs)} were expected."
        )
    graph.replace(graph.inputs[0].name, "image")
    graph.inputs = [Value("image", ("N", 3, *size))]
    for value in graph.outputs:
        public, shape = outputs[value.name]
        graph.rename_outputs({value.name: public})
        value.shape = ("N", *shape)
    _free_batch(graph)
    return simplify(graph)


def _free_batch(graph: Graph) -> None:
    """A Reshape to (1, -1) puts a whole batch into one row; a Flatten keeps one row per image."""
    for node in graph.nodes:
        if node.op != "Reshape":
            continue
        target = graph.constants.get(node.inputs[1])
        if target is None or target.tolist() != [1, -1]:
            raise ModelError(f"The model {graph.name} reshapes to {target}; its batch axis is unknown.")
        node.op, node.inputs, node.attrs = "Flatten", node.inputs[:1], {"axis": 1}


def centerface(data: bytes) -> bytes:
    """CenterFace for any batch and any image whose sides are multiples of 32; four maps at a quarter of the
    size."""
    return repair(
        "centerface",
        data,
        ("H", "W"),
        {
            "537": ("heatmap", (1, "h", "w")),
            "538": ("scale", (2, "h", "w")),
            "539": ("offset", (2, "h", "w")),
            "540": ("landmarks", (10, "h", "w")),
        },
    ).to_bytes()


def fr_feature(data: bytes) -> bytes:
    """fr_feature for any batch: image (N, 3, 112, 112) -> embedding (N, 512)."""
    return repair("fr-feature", data, (112, 112), {"output": ("embedding", (512,))}).to_bytes()


def age_gender(age: bytes, gender: bytes) -> bytes:
    """Cydral's two networks as one: image (N, 3, 64, 64) -> age (N, 81), gender (N, 2), both probabilities.

    The gender network wants 32x32; the mean of each 2x2 of the 64x64 crop is that crop.
    """
    whole = repair("age", age, (64, 64), {"probabilities": ("age", (81,))})
    half = repair("gender", gender, (32, 32), {"probabilities": ("gender", (2,))})
    for node in half.nodes:  # the two files number their layers alike
        node.inputs = [i if i == "image" else f"gender_{i}" for i in node.inputs]
        node.outputs = [o if o == "gender" else f"gender_{o}" for o in node.outputs]
    whole.constants |= {f"gender_{k}": v for k, v in half.constants.items()}
    small = whole.add("AveragePool", "image", name="gender_image", kernel_shape=[2, 2], strides=[2, 2])
    half.replace("image", small)
    whole.nodes += half.nodes
    whole.outputs += half.outputs
    whole.name = "age-gender"
    return whole.to_bytes()
