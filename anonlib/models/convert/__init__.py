"""From the files of a package to the ONNX that anonlib runs, once, when models are pulled.

All input is pinned by sha256, so nothing is checked. The ONNX files have faults that no runtime reports: a batch norm
that is never folded, a Reshape that mixes the faces of a batch, a fixed image size. Repaired, a model has one float32
input with a free batch axis, named outputs, opset 17, and nothing left to fold.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from pathlib import PurePosixPath

import numpy as np
import onnx
from onnx import numpy_helper, version_converter

from anonlib.models.catalog import ModelCard
from anonlib.models.convert.graph import Array, Dims, Graph, Node, read_onnx, simplify
from anonlib.models.convert.tfjs import convert_graph, read_graph_def, read_graph_model, read_weights

_Outputs = Mapping[str, tuple[str, Dims]]  # each output of a file: its new name and its shape without the batch axis
_OUTPUTS = {
    "centerface": ("537", "538", "539", "540"),
    "centernet": ("tower_0/keypoints", "tower_0/wh"),
    "fr-feature": ("output",),
    # The third output, contours, repeats mesh points in finer detail that is not used here.
    "facemesh": ("Identity_2", "Identity_1"),
    "faceres": ("global_pooling/Mean", "age_pred/Softmax", "gender_pred/Sigmoid"),
    "mobileface": ("batchnorm0/add_1",),
    "antispoof": ("Identity",),
    "liveness": ("Identity",),
    # before it is scaled to length 1, which every reader of embeddings does
    "facenet": ("InceptionResnetV1/Bottleneck/BatchNorm/cond/FusedBatchNorm_1",),
    "iris": tuple(
        f"StatefulPartitionedCall/model/{layer}/BiasAdd" for layer in ("conv_eyes_contours_and_brows", "conv_iris")
    ),
}
"""What a file calls the outputs that the catalogue lists, in its order."""
_STARTS = {
    "antispoof": "conv2d_input",
    "centernet": "tower_0/images",
    "liveness": "conv2d_1_input",
    # It normalises its own input; starting at `mul` skips that, because `prepare` does it for every model.
    "mobileface": "mul",
}
"""Where a TF.js graph begins, if not at `input_1`."""
_DLIB_BLOCKS = (
    *("conv32_1", "conv32_2", "conv32_3"),
    *("conv64_down", "conv64_1", "conv64_2", "conv64_3"),
    *("conv128_down", "conv128_1", "conv128_2"),
    *("conv256_down", "conv256_1", "conv256_2", "conv256_down_out"),
)

_SYMBOLS, _CODE_OR_DATA, _OBJECT = 11, 1, 1
"""ELF's SHT_DYNSYM, SHT_PROGBITS and STT_OBJECT."""
_CHANNELS = 64


def to_onnx(model: ModelCard, members: Mapping[str, bytes]) -> bytes:
    """Archive members (path -> bytes) -> ONNX bytes, the same on every machine."""
    name = model.name
    first, *others = (members[path] for path in model.members)
    files = dict(zip((PurePosixPath(path).name for path in list(model.members)[1:]), others, strict=True))
    outputs = dict(zip(_OUTPUTS.get(name, ()), model.outputs.items(), strict=False))
    match name:
        case "centerface" | "fr-feature":
            return repair(name, first, model.input.size or ("H", "W"), outputs).to_bytes()
        case "facenet":
            return convert_graph(name, *read_graph_def(first), start="input", outputs=outputs)
        case "age-gender":
            return age_gender(first, *others)
        case "face-gan":
            return face_gan(first)
        case "yuface":
            return yuface(first)
        case "ppocr-det":
            return text_detector(first)
        case "dlib-resnet":
            return dlib_resnet(read_weights(json.loads(first), files))
        case "expression":
            return expression(read_weights(json.loads(first), files))
    return convert_graph(name, *read_graph_model(first, files), start=_STARTS.get(name, "input_1"), outputs=outputs)


def repair(name: str, data: bytes, size: Dims, outputs: _Outputs) -> Graph:
    """ONNX bytes -> a repaired graph with input "image" (N, 3, *size)."""
    graph = read_onnx(data, name)
    graph.rename(next(iter(graph.inputs)), "image")
    for old, (new, _) in outputs.items():
        graph.rename(old, new)
    graph.inputs = {"image": ("N", 3, *size)}
    graph.outputs = {new: ("N", *shape) for new, shape in outputs.values()}
    for node in graph.nodes:
        if node.op == "Reshape":  # to (1, -1), which puts a whole batch into one row
            node.op, node.inputs, node.attrs = "Flatten", node.inputs[:1], {"axis": 1}
    return simplify(graph)


def text_detector(data: bytes) -> bytes:
    """PP-OCR's detection network with its preparation of photos: image (N, 3, H, W) RGB 0..255, H and W multiples of
    32, to text (N, 1, H, W), the logit of a probability."""
    newer = version_converter.convert_version(onnx.load_model_from_string(data), 13)  # it is of opset 10
    graph = read_onnx(newer.SerializeToString(), "ppocr-det")
    for node in [node for node in graph.nodes if node.op == "Constant"]:
        graph.nodes.remove(node)
        graph.const(numpy_helper.to_array(node.attrs["value"]), node.outputs[0])
    for node in [node for node in graph.nodes if node.op == "Reshape"]:  # of weights, which could not be folded else
        graph.nodes.remove(node)
        weight, shape = (graph.constants[name] for name in node.inputs)
        graph.const(weight.reshape(shape), node.outputs[0])
    first = next(node for node in graph.nodes if node.op == "Conv")
    graph.constants[first.inputs[1]] = graph.constants[first.inputs[1]][:, ::-1].copy()  # it was trained on BGR
    first.inputs[0] = "centred"
    half = graph.const(np.array(127.5, np.float32), "half")
    ready = [Node("Sub", ["image", half], ["shifted"]), Node("Div", ["shifted", half], ["centred"])]
    graph.nodes[:0] = ready
    *graph.nodes, sigmoid, _ = graph.nodes
    graph.rename(sigmoid.inputs[0], "text")  # without the Sigmoid, behind which little is left to compare
    graph.inputs, graph.outputs = {"image": ("N", 3, "H", "W")}, {"text": ("N", 1, "H", "W")}
    return simplify(graph).to_bytes()


def age_gender(age: bytes, gender: bytes) -> bytes:
    """Cydral's two networks as one: image (N, 3, 64, 64) -> age (N, 81), gender (N, 2), both probabilities. The gender
    network wants 32x32; the mean of each 2x2 of the 64x64 crop is that crop."""
    whole = repair("age", age, (64, 64), {"probabilities": ("age", (81,))})
    half = repair("gender", gender, (32, 32), {"probabilities": ("gender", (2,))})
    for node in half.nodes:  # the two files number their layers alike
        node.inputs = [i if i == "image" else f"gender_{i}" for i in node.inputs]
        node.outputs = [o if o == "gender" else f"gender_{o}" for o in node.outputs]
    whole.constants |= {f"gender_{k}": v for k, v in half.constants.items()}
    small = whole.add("AveragePool", "image", name="gender_image", kernel_shape=[2, 2], strides=[2, 2])
    half.rename("image", small)
    whole.nodes += half.nodes
    whole.outputs |= half.outputs
    whole.name = "age-gender"
    return whole.to_bytes()


def dlib_resnet(weights: Mapping[str, Array]) -> bytes:
    """dlib's face recognition ResNet (King, dlib.net, 2017): image (N, 3, 150, 150) -> embedding (N, 128), not
    normalised. Where a block halves the image, the shortcut is an average pool, and the smaller branch is padded with
    zeros."""
    graph = Graph("dlib-resnet", {"image": ("N", 3, 150, 150)})

    def conv(value: str, prefix: str, stride: int, pad: int) -> str:
        kernel = weights[f"{prefix}/conv/filters"].transpose(3, 2, 0, 1)
        out = graph.conv(value, kernel, weights[f"{prefix}/conv/bias"], stride, [pad] * 4)
        out = graph.add("Mul", out, graph.const(weights[f"{prefix}/scale/weights"].reshape(-1, 1, 1)))
        return graph.add("Add", out, graph.const(weights[f"{prefix}/scale/biases"].reshape(-1, 1, 1)))

    def zeros_after(value: str, channels: int, pixels: int) -> str:
        amounts = np.array([0, 0, 0, 0, 0, channels, pixels, pixels], dtype=np.int64)
        return graph.add("Pad", value, graph.const(amounts)) if amounts.any() else value

    value = graph.add("Relu", conv("image", "conv32_down", 2, 0))
    value = graph.add("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 0, 0])
    size, channels = 35, 32  # 150 -> 72 -> 35
    for name in _DLIB_BLOCKS:
        down = "down" in name
        out = graph.add("Relu", conv(value, f"{name}/conv1", 2 if down else 1, 0 if down else 1))
        out = conv(out, f"{name}/conv2", 1, 1)
        if down:
            width = weights[f"{name}/conv2/conv/bias"].size
            pooled = size // 2
            out = zeros_after(out, 0, pooled - (size - 3) // 2 - 1)
            value = graph.add("AveragePool", value, kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0])
            value = zeros_after(value, width - channels, 0)
            size, channels = pooled, width
        value = graph.add("Relu", graph.add("Add", out, value))
    value = graph.add("Flatten", graph.add("GlobalAveragePool", value), axis=1)
    graph.outputs[graph.add("MatMul", value, graph.const(weights["fc"]), name="embedding")] = ("N", 128)
    return simplify(graph).to_bytes()


def expression(weights: Mapping[str, Array]) -> bytes:
    """face-api's expression network (Mühler, 2018): image (N, 3, 112, 112) -> probabilities (N, 7) as in the
    catalogue."""
    graph = Graph("expression", {"image": ("N", 3, 112, 112)})
    # "SAME" with an even image: a stride of 2 pads only after, a stride of 1 pads both sides
    pads = {1: [1, 1, 1, 1], 2: [0, 0, 1, 1]}

    def separable(value: str, prefix: str, stride: int) -> str:
        depth = weights[f"{prefix}/depthwise_filter"].transpose(2, 3, 0, 1)
        value = graph.conv(value, depth, None, stride, pads[stride], len(depth))
        point = weights[f"{prefix}/pointwise_filter"].transpose(3, 2, 0, 1)
        return graph.conv(value, point, weights[f"{prefix}/bias"], 1, [0] * 4)

    kernel = weights["dense0/conv0/filters"].transpose(3, 2, 0, 1)
    value = graph.conv("image", kernel, weights["dense0/conv0/bias"], 2, pads[2])
    for block in range(4):
        if block:
            value = separable(value, f"dense{block}/conv0", 2)
        total = value = graph.add("Relu", value)
        for layer in (1, 2, 3):  # every layer sees the sum of all before it
            total = graph.add("Add", total, separable(value, f"dense{block}/conv{layer}", 1))
            value = graph.add("Relu", total)
    value = graph.add("AveragePool", value, kernel_shape=[7, 7], strides=[2, 2], pads=[0, 0, 0, 0])
    value = graph.add("Flatten", value, axis=1)
    value = graph.add("Gemm", value, graph.const(weights["fc/weights"]), graph.const(weights["fc/bias"]))
    graph.outputs[graph.add("Softmax", value, axis=-1, name="expression")] = ("N", 7)
    return simplify(graph).to_bytes()


def face_gan(checkpoint: bytes) -> bytes:
    """A DCGAN generator (Radford et al., arXiv:1511.06434): latent (N, 100, 1, 1) -> image (N, 3, 64, 64) RGB in
    -1..1."""
    import torch

    state = torch.load(io.BytesIO(checkpoint), map_location="cpu", weights_only=True)["netG_state_dict"]
    weights: dict[str, Array] = {k: v.numpy() for k, v in state.items() if v.is_floating_point()}
    graph = Graph("face-gan", {"latent": ("N", 100, 1, 1)})
    value = "latent"
    for layer in range(0, 13, 3):  # a torch Sequential of (transposed convolution, batch norm, relu)
        stride, pads = ([1, 1], [0] * 4) if layer == 0 else ([2, 2], [1] * 4)
        kernel = graph.const(weights[f"main.{layer}.weight"])
        value = graph.add("ConvTranspose", value, kernel, kernel_shape=[4, 4], strides=stride, pads=pads, group=1)
        if layer < 12:
            names = [f"main.{layer + 1}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
            parts = [graph.const(weights[name]) for name in names]
            value = graph.add("Relu", graph.add("BatchNormalization", value, *parts, epsilon=1e-5))
    graph.outputs[graph.add("Tanh", value, name="image")] = ("N", 3, 64, 64)
    return simplify(graph).to_bytes()


def yuface(library: bytes) -> bytes:
    """YuNet (Wu et al. 2023, Machine Intelligence Research 20), the detector of libfacedetection, built anew from the
    weights among the library's symbols, so that no foreign code runs.

    libfacedetection.so -> image (N, 3, H, W) RGB, H and W multiples of 32, to maps (N, 15, h, w) of the strides 8,
    16 and 32: score, box (middle x and y from the cell's, log width and height) and five points, in strides."""
    weights = _arrays(library)
    graph = Graph("yuface", {"image": ("N", 3, "H", "W")})

    def layer(value: str, name: str, *, active: bool = True) -> str:
        """A convolution of 1x1 and one of 3x3 in each channel."""
        bias = weights[f"{name}_pw_bias"]
        value = graph.conv(value, weights[f"{name}_pw_weight"].reshape(len(bias), -1, 1, 1), bias, 1, [0] * 4)
        kernel = weights[f"{name}_dw_weight"].reshape(9, -1).T.reshape(-1, 1, 3, 3)
        value = graph.conv(value, kernel, weights[f"{name}_dw_bias"], 1, [1] * 4, len(bias))
        return graph.add("Relu", value) if active else value

    def halved(value: str) -> str:
        return graph.add("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2], pads=[0] * 4)

    # the first convolution's rows are 3x3 px BGR and five zeros
    first = weights["backbone__model0_pw_weight"].reshape(-1, 32)[:, :27].reshape(-1, 3, 3, 3)
    value = graph.conv("image", first.transpose(0, 3, 1, 2)[:, ::-1], weights["backbone__model0_pw_bias"], 2, [1] * 4)
    value = halved(layer(graph.add("Relu", value), "backbone__model0_dp"))
    levels: list[str] = []
    for block in range(1, 6):
        value = halved(value) if block > 2 else value
        for half in (1, 2):
            value = layer(value, f"backbone__model{block}_dp{half}")
        levels += [value] if block > 2 else []
    twice = graph.const(np.ones((_CHANNELS, 1, 2, 2), np.float32))
    for level in (2, 1, 0):
        if level < 2:  # the next coarser level, each px four times
            finer = graph.add(
                "ConvTranspose", value, twice, kernel_shape=[2, 2], strides=[2, 2], pads=[0] * 4, group=_CHANNELS
            )
            levels[level] = graph.add("Add", levels[level], finer)
        value = levels[level] = layer(levels[level], f"neck__lateral_convs__{level}")
    for level, stride in enumerate((8, 16, 32)):
        heads = [f"bbox_head__multi_level_{kind}__{level}" for kind in ("cls", "obj", "bbox", "kps")]
        face, thing, *places = (layer(levels[level], head, active=False) for head in heads)
        score = graph.add("Sqrt", graph.add("Mul", *(graph.add("Sigmoid", part) for part in (face, thing))))
        maps = graph.add("Concat", score, *places, name=f"stride{stride}", axis=1)
        graph.outputs[maps] = ("N", 15, f"h{stride}", f"w{stride}")
    return simplify(graph).to_bytes()


def _arrays(library: bytes) -> dict[str, Array]:
    """The float32 arrays that a 64-bit little-endian ELF library exports, by name."""
    (start,) = struct.unpack_from("<Q", library, 40)
    size, count = struct.unpack_from("<HH", library, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", library, start + size * number) for number in range(count)]
    table = next(section for section in sections if section[1] == _SYMBOLS)
    names = sections[table[6]][4]
    arrays = {}
    for at in range(table[4], table[4] + table[5], 24):
        name, kind, _, section, address, length = struct.unpack_from("<IBBHQQ", library, at)
        if kind & 15 == _OBJECT and 0 < section < count and sections[section][1] == _CODE_OR_DATA:
            text = library[names + name : library.index(b"\0", names + name)].decode()
            offset = sections[section][4] + address - sections[section][3]
            arrays[text] = np.frombuffer(library, "<f4", length // 4, offset)
    return arrays
