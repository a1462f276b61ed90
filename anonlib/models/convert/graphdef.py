"""A frozen TensorFlow graph (GraphDef, protobuf) as TF.js writes such a graph in JSON, so that one converter has both.

TensorFlow is not needed: the few messages and fields that a network of constants uses are declared here, with the
numbers of tensorflow/core/framework/*.proto, and protobuf passes over all others.
"""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]

from anonlib.models.convert.graph import Array

_MESSAGES = {  # message -> field -> its number and type; "*" after a type: repeated
    "Dim": {"size": (1, "int64")},
    "Shape": {"dim": (2, "Dim*")},
    "Tensor": {"dtype": (1, "int32"), "shape": (2, "Shape"), "content": (4, "bytes"), "floats": (5, "float*"),
               "ints": (7, "int32*")},
    "List": {"i": (3, "int64*")},
    "Value": {"list": (1, "List"), "s": (2, "bytes"), "f": (4, "float"), "shape": (7, "Shape"),
              "tensor": (8, "Tensor")},
    "Attr": {"key": (1, "string"), "value": (2, "Value")},
    "Node": {"name": (1, "string"), "op": (2, "string"), "input": (3, "string*"), "attr": (5, "Attr*")},
    "Graph": {"node": (1, "Node*")},
}  # fmt: skip
_KINDS = {1: np.float32, 3: np.int32}
"""TensorFlow's DT_FLOAT and DT_INT32."""


def read_graph_def(data: bytes) -> tuple[list[dict[str, Any]], dict[str, Array]]:
    """The bytes of a frozen graph (.pb) -> its nodes but constants, each after its inputs and as in TF.js's JSON, and
    its constants by name. Raises protobuf's DecodeError for other bytes, KeyError for a constant that is neither
    float32 nor int32."""
    graph = _graph_class()()
    graph.ParseFromString(data)
    by_name = {node.name: node for node in graph.node}
    inputs_of = {name: [i.removesuffix(":0").removeprefix("^") for i in node.input] for name, node in by_name.items()}
    nodes, weights = [], {}
    for node in map(by_name.__getitem__, TopologicalSorter(inputs_of).static_order()):
        values = {attr.key: attr.value for attr in node.attr}
        if node.op == "Const":
            weights[node.name] = _array(values["value"].tensor)
            continue
        attributes = {key: MessageToDict(value) for key, value in values.items()}
        nodes.append({"name": node.name, "op": node.op, "input": inputs_of[node.name], "attr": attributes})
    return nodes, weights


def _array(tensor: Any) -> Array:
    """The numbers of a TensorProto; where fewer are listed than its shape has, the last one is repeated."""
    kind, shape = np.dtype(_KINDS[tensor.dtype]), [dim.size for dim in tensor.shape.dim]
    if tensor.content:
        return np.frombuffer(tensor.content, kind.newbyteorder("<")).astype(kind).reshape(shape)
    listed = np.array(tensor.floats or tensor.ints, kind)
    return np.pad(listed, (0, int(np.prod(shape)) - len(listed)), mode="edge").reshape(shape)


def _graph_class() -> Any:
    """The class of the message Graph."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="anonlib/graph_def.proto", package="graph_def", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for key, (number, kind) in fields.items():
            plain = kind.removesuffix("*")
            label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            if plain in _MESSAGES:
                of = {"type": field.TYPE_MESSAGE, "type_name": f".graph_def.{plain}"}
            else:
                of = {"type": getattr(field, f"TYPE_{plain.upper()}")}
            message.field.add(name=key, number=number, label=label, **of)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("graph_def.Graph"))
