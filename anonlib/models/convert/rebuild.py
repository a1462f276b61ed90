"""Networks of which a package ships only the weights; the layers are written from the publications.

- `dlib_resnet`: King, "High quality face recognition with deep metric learning", dlib.net, 2017: a ResNet of
  29 convolutions that ends in 128 numbers. Where a block halves the image, the shortcut is an average pool,
  and whichever branch is smaller is padded with zeros at the end (dlib's add_prev).
- `expression`: Mühler, face-api.js, 2018: four dense blocks of depthwise separable convolutions.
- `face_gan`: Radford et al., DCGAN, arXiv:1511.06434: five transposed convolutions, 100 numbers to 64x64 px.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from anonlib.models.convert.fold import simplify
from anonlib.models.convert.graph import Array, Graph, Value

_DLIB_BLOCKS = (
    *("conv32_1", "conv32_2", "conv32_3"),
    *("conv64_down", "conv64_1", "conv64_2", "conv64_3"),
    *("conv128_down", "conv128_1", "conv128_2"),
    *("conv256_down", "conv256_1", "conv256_2", "conv256_down_out"),
)
EXPRESSIONS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")


def dlib_resnet(weights: Mapping[str, Array]) -> bytes:
    """dlib's face recognition ResNet: image (N, 3, 150, 150) -> embedding (N, 128), not normalised."""
    graph = Graph("dlib-resnet", [Value("image", ("N", 3, 150, 150))])

    def conv(value: str, prefix: str, stride: int, pad: int) -> str:
        kernel = weights[f"{prefix}/conv/filters"].transpose(3, 2, 0, 1)
        names = [graph.const(np.ascontiguousarray(kernel)), graph.const(weights[f"{prefix}/conv/bias"])]
        size = kernel.shape[2]
        out = graph.add("Conv", value, *names, kernel_shape=[size, size], strides=[stride] * 2, pads=[pad] * 4, group=1)
        out = graph.add("Mul", out, graph.const(weights[f"{prefix}/scale/weights"].reshape(-1, 1, 1)))
        return graph.add("Add", out, graph.const(weights[f"{prefix}/scale/biases"].reshape(-1, 1, 1)))

    def zeros_after(value: str, channels: int, pixels: int) -> str:
        if not channels and not pixels:
            return value
        amounts = np.array([0, 0, 0, 0, 0, channels, pixels, pixels], dtype=np.int64)
        return graph.add("Pad", value, graph.const(amounts))

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
    value = graph.add("MatMul", value, graph.const(weights["fc"]), name="embedding")
    graph.outputs.append(Value(value, ("N", 128)))
    return simplify(graph).to_bytes()


def expression(weights: Mapping[str, Array]) -> bytes:
    """face-api's expression network: image (N, 3, 112, 112) -> probabilities (N, 7), in the order of
    EXPRESSIONS."""
    graph = Graph("expression", [Value("image", ("N", 3, 112, 112))])

    def conv(value: str, kernel: Array, bias: Array | None, stride: int, group: int) -> str:
        size = kernel.shape[2]
        # "SAME" with an even image: a stride of 2 pads only after, a stride of 1 pads both sides
        before, after = (0, 0) if size == 1 else (0, 1) if stride == 2 else (1, 1)
        names = [graph.const(np.ascontiguousarray(kernel))] + ([graph.const(bias)] if bias is not None else [])
        return graph.add(
            "Conv", value, *names,
            kernel_shape=[size, size], strides=[stride] * 2, pads=[before, before, after, after], group=group,
        )  # fmt: skip

    def separable(value: str, prefix: str, stride: int) -> str:
        depth = weights[f"{prefix}/depthwise_filter"].transpose(2, 3, 0, 1)
        point = weights[f"{prefix}/pointwise_filter"].transpose(3, 2, 0, 1)
        value = conv(value, depth, None, stride, depth.shape[0])
        return conv(value, point, weights[f"{prefix}/bias"], 1, 1)

    value = "image"
    for block in range(4):
        if block == 0:
            kernel = weights["dense0/conv0/filters"].transpose(3, 2, 0, 1)
            value = conv(value, kernel, weights["dense0/conv0/bias"], 2, 1)
        else:
            value = separable(value, f"dense{block}/conv0", 2)
        total = value = graph.add("Relu", value)
        for layer in (1, 2, 3):  # every layer sees the sum of all before it
            total = graph.add("Add", total, separable(value, f"dense{block}/conv{layer}", 1))
            value = graph.add("Relu", total)
    value = graph.add("AveragePool", value, kernel_shape=[7, 7], strides=[2, 2], pads=[0, 0, 0, 0])
    value = graph.add("Flatten", value, axis=1)
    names = [graph.const(weights["fc/weights"]), graph.const(weights["fc/bias"])]
    value = graph.add("Softmax", graph.add("Gemm", value, *names), axis=-1, name="expression")
    graph.outputs.append(Value(value, ("N", 7)))
    return simplify(graph).to_bytes()


def face_gan(checkpoint: bytes) -> bytes:
    """A DCGAN generator from its torch checkpoint: latent (N, 100, 1, 1) -> image (N, 3, 64, 64) RGB in
    [-1, 1]."""
    import torch

    state = torch.load(io.BytesIO(checkpoint), map_location="cpu", weights_only=True)["netG_state_dict"]
    weights: dict[str, Array] = {k: v.numpy() for k, v in state.items() if v.is_floating_point()}
    graph = Graph("face-gan", [Value("latent", ("N", 100, 1, 1))])
    value = "latent"
    for layer in range(0, 13, 3):  # a torch Sequential of (transposed convolution, batch norm, relu)
        stride, pad = (1, 0) if layer == 0 else (2, 1)
        value = graph.add(
            "ConvTranspose", value, graph.const(weights[f"main.{layer}.weight"]),
            kernel_shape=[4, 4], strides=[stride] * 2, pads=[pad] * 4, group=1,
        )  # fmt: skip
        if layer == 12:
            value = graph.add("Tanh", value, name="image")
            break
        norm = f"main.{layer + 1}"
        parts = [f"{norm}.{k}" for k in ("weight", "bias", "running_mean", "running_var")]
        value = graph.add("BatchNormalization", value, *(graph.const(weights[p]) for p in parts), epsilon=1e-5)
        value = graph.add("Relu", value)
    graph.outputs.append(Value(value, ("N", 3, 64, 64)))
    return simplify(graph).to_bytes()
