"""Claims about the rebuilt networks, against torch with random weights; the real ones: test_models_answers.py."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

from anonlib.models.convert import rebuild
from anonlib.models.runtime import load_engine

RNG = np.random.default_rng(5)


def close(data: bytes, x: np.ndarray, expected: torch.Tensor) -> None:
    (got,) = load_engine(data, backend="onnxruntime")(x)
    wanted = expected.numpy()
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_dlib_resnet_pads_the_smaller_branch_with_zeros_at_the_end() -> None:
    weights, width = {}, 3
    for block in ("conv32_down", *rebuild._DLIB_BLOCKS):
        wide = int(block.split("_")[0].removeprefix("conv"))
        layers = [block] if block == "conv32_down" else [f"{block}/conv1", f"{block}/conv2"]
        for layer in layers:
            size = 7 if block == "conv32_down" else 3
            kernel = RNG.normal(size=(size, size, width, wide)) / np.sqrt(size * size * width)
            weights[f"{layer}/conv/filters"] = kernel.astype(np.float32)
            for part in ("conv/bias", "scale/weights", "scale/biases"):
                weights[f"{layer}/{part}"] = RNG.normal(1, 0.1, wide).astype(np.float32)
            width = wide
    weights["fc"] = RNG.normal(size=(256, 128)).astype(np.float32)

    def conv(x: torch.Tensor, layer: str, stride: int, pad: int) -> torch.Tensor:
        w, b, scale, shift = (torch.from_numpy(weights[f"{layer}/{p}"]) for p in
                              ("conv/filters", "conv/bias", "scale/weights", "scale/biases"))  # fmt: skip
        x = F.conv2d(x, w.permute(3, 2, 0, 1), b, stride, pad)
        return x * scale.reshape(-1, 1, 1) + shift.reshape(-1, 1, 1)

    image = RNG.normal(size=(2, 3, 150, 150)).astype(np.float32)
    x = F.max_pool2d(torch.relu(conv(torch.from_numpy(image), "conv32_down", 2, 0)), 3, 2)
    for block in rebuild._DLIB_BLOCKS:
        down = block.endswith(("_down", "_out"))
        out = conv(torch.relu(conv(x, f"{block}/conv1", 1 + down, 1 - down)), f"{block}/conv2", 1, 1)
        short = F.avg_pool2d(x, 2) if down else x
        whole = torch.zeros(2, out.shape[1], short.shape[2], short.shape[3])
        for part in (out, short):
            whole[:, : part.shape[1], : part.shape[2], : part.shape[3]] += part
        x = torch.relu(whole)
    close(rebuild.dlib_resnet(weights), image, x.mean((2, 3)) @ torch.from_numpy(weights["fc"]))


def test_every_layer_of_an_expression_block_sees_the_sum_of_those_before() -> None:
    weights, width = {}, 3
    for block, wide in enumerate((32, 64, 128, 256)):
        for layer in range(4):
            name = f"dense{block}/conv{layer}"
            if block == layer == 0:
                weights[f"{name}/filters"] = RNG.normal(0, 0.2, (3, 3, 3, 32)).astype(np.float32)
            else:
                weights[f"{name}/depthwise_filter"] = RNG.normal(0, 0.3, (3, 3, width, 1)).astype(np.float32)
                weights[f"{name}/pointwise_filter"] = RNG.normal(0, 0.1, (1, 1, width, wide)).astype(np.float32)
            weights[f"{name}/bias"] = RNG.normal(0, 0.1, wide).astype(np.float32)
            width = wide
    weights["fc/weights"] = RNG.normal(0, 0.02, (256, 7)).astype(np.float32)
    weights["fc/bias"] = RNG.normal(size=7).astype(np.float32)
    w = {k: torch.from_numpy(v) for k, v in weights.items()}

    def layer(x: torch.Tensor, name: str, stride: int) -> torch.Tensor:
        x = F.pad(x, (0, 1, 0, 1)) if stride == 2 else F.pad(x, (1, 1, 1, 1))
        if f"{name}/filters" in w:
            return F.conv2d(x, w[f"{name}/filters"].permute(3, 2, 0, 1), w[f"{name}/bias"], stride)
        x = F.conv2d(x, w[f"{name}/depthwise_filter"].permute(2, 3, 0, 1), None, stride, groups=x.shape[1])
        return F.conv2d(x, w[f"{name}/pointwise_filter"].permute(3, 2, 0, 1), w[f"{name}/bias"])

    image = RNG.normal(size=(2, 3, 112, 112)).astype(np.float32)
    x = torch.from_numpy(image)
    for block in range(4):
        first = torch.relu(layer(x, f"dense{block}/conv0", 2))
        second = layer(first, f"dense{block}/conv1", 1)
        third = layer(torch.relu(first + second), f"dense{block}/conv2", 1)
        fourth = layer(torch.relu(first + second + third), f"dense{block}/conv3", 1)
        x = torch.relu(first + second + third + fourth)
    logits = x.mean((2, 3)) @ w["fc/weights"] + w["fc/bias"]
    close(rebuild.expression(weights), image, torch.softmax(logits, 1))


def test_a_dcgan_checkpoint_draws_what_torch_draws() -> None:
    widths = (100, 512, 256, 128, 64, 3)
    layers: list[torch.nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers.append(torch.nn.ConvTranspose2d(a, b, 4, 1 if i == 0 else 2, 0 if i == 0 else 1, bias=False))
        layers += [torch.nn.BatchNorm2d(b), torch.nn.ReLU()] if b != 3 else [torch.nn.Tanh()]
    net = torch.nn.Sequential(*layers).eval()
    for module in net:
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    file = io.BytesIO()
    torch.save({"netG_state_dict": {f"main.{k}": v for k, v in net.state_dict().items()}}, file)
    latent = RNG.normal(size=(2, 100, 1, 1)).astype(np.float32)
    with torch.inference_mode():
        close(rebuild.face_gan(file.getvalue()), latent, net(torch.from_numpy(latent)))
