"""Claims about frozen graphs, on bytes written field by field as protobuf's wire format has them."""

from __future__ import annotations

import numpy as np
import pytest

from anonlib.models.convert.tfjs import read_graph_def


def field(number: int, value: bytes | str | int) -> bytes:
    """A field of a message: a number below 128, or up to 127 bytes."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    data = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2, len(data)]) + data


def node(name: str, op: str, *inputs: str, **attributes: bytes) -> bytes:
    entries = [field(5, field(1, key) + field(2, value)) for key, value in attributes.items()]
    return field(1, b"".join([field(1, name), field(2, op), *(field(3, i) for i in inputs), *entries]))


def constant(name: str, kind: int, shape: tuple[int, ...], numbers: bytes) -> bytes:
    sides = b"".join(field(2, field(1, side)) for side in shape)
    return node(name, "Const", value=field(8, field(1, kind) + field(2, sides) + numbers))


def test_nodes_come_after_their_inputs_with_the_attributes_of_tfjs_and_constants_have_their_shape() -> None:
    graph = (
        node("sum", "Add", "pool:0", "whole", device=field(4, b""))
        + node("pool", "MaxPool", "x", strides=field(1, field(3, bytes([1, 2, 2, 1]))), padding=field(2, b"SAME"))
        + constant("whole", 1, (2, 3), field(4, np.arange(6, dtype="<f4").tobytes()))
        + constant("same", 3, (4,), field(7, bytes([7])))
        + node("x", "Placeholder")
    )
    nodes, weights = read_graph_def(graph)
    assert [n["name"] for n in nodes] == ["x", "pool", "sum"] and nodes[2]["input"] == ["pool", "whole"]
    assert nodes[1]["attr"] == {"strides": {"list": {"i": ["1", "2", "2", "1"]}}, "padding": {"s": "U0FNRQ=="}}
    assert weights["whole"].tolist() == [[0, 1, 2], [3, 4, 5]] and weights["same"].tolist() == [7] * 4
    with pytest.raises(KeyError):  # float64, which no network here has
        read_graph_def(constant("c", 2, (), b""))
