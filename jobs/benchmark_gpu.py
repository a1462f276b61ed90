"""What a GPU makes of anonlib: run once on a machine that has one, `python jobs/benchmark_gpu.py`.

    networks    images/s of each network in batches as the job calls it, and the share of the roofline: its
                multiplications and additions over what a large float32 matrix product reaches on the same device
    codecs      images/s of all cores that decode and encode the benchmark's photos, with no network
    whole job   images/s of `solid` and of k-diff, and solid over the slower of its network and the codecs

With `--device cpu` the same is told of a CPU, which shows that the script runs. Nothing of it is in docs/results.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import prod

import numpy as np
import onnx
import simplejpeg
import torch
from benchmark import CORES, FACES, ROOT, SEEN, Photos, anonlib_job, drawn_photos

from anonlib.models.cache import model_bytes
from anonlib.models.catalog import FACE_MODELS, MODELS
from anonlib.models.runtime import load_engine, rows_at_once

SECONDS = 3.0  # of each measurement
SIDE = 4096  # of the matrices


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--job", type=int, default=2000, help="photos of the timed jobs")
    options = parser.parse_args()
    on_gpu = options.device != "cpu"
    name = torch.cuda.get_device_name(options.device) if on_gpu else "cpu"
    peak = roofline(options.device)
    print(f"{name}, {CORES} cores of a CPU; a product of matrices: {peak / 1e12:.2f} TFLOP/s in float32\n")
    print("| network | backend | images/s | GFLOP an image | share of the roofline |\n|---|---|---:|---:|---:|")
    rates = {}
    for network in ("centerface", *FACE_MODELS):
        shape = (MODELS[network].input.channels, *(MODELS[network].input.size or (384, SEEN[0])))
        engine = load_engine(model_bytes(network), device=options.device)
        batch = np.zeros((rows_at_once(4 * prod(shape), on_gpu), *shape), np.float32)
        rates[network] = rate = len(batch) * per_second(lambda engine=engine, batch=batch: engine(batch))
        flop = flops(model_bytes(network), shape)
        print(f"| {network} | {engine.backend} | {rate:.0f} | {flop / 1e9:.2f} | {rate * flop / peak:.1%} |")
    photos = drawn_photos(ROOT / "photos", FACES)
    rates["codecs"] = codecs(photos)
    print(f"\ndecoding and encoding, no network: {rates['codecs']:.0f} images/s")
    for method in ("solid", "k-diff"):
        ran = anonlib_job(photos, options.job, method, 1 if on_gpu else 0, "f32", gpus=float(on_gpu))
        limit = min(rates["centerface"], rates["codecs"])
        print(f"{method}: {ran['images_s']:.1f} images/s, {ran['images_s'] / limit:.0%} of the slower")


def per_second(call: Callable[[], object]) -> float:
    """How often `call` runs in a second, once it is warm."""
    call()
    count, began = 0, time.monotonic()
    while time.monotonic() - began < SECONDS:
        call()
        count += 1
    return count / (time.monotonic() - began)


def roofline(device: str) -> float:
    """FLOP/s of a float32 product of two large matrices, without TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    matrix = torch.ones((SIDE, SIDE), device=device)

    def multiply() -> float:
        return float((matrix @ matrix)[0, 0])  # which waits for the device

    return 2.0 * SIDE**3 * per_second(multiply)


def flops(model: bytes, row: tuple[int, ...]) -> float:
    """Twice the multiplications of the convolutions and matrix products of a network, for one input of shape `row`."""
    graph = onnx.load_model_from_string(model)
    for dimension, side in zip(graph.graph.input[0].type.tensor_type.shape.dim, (1, *row), strict=True):
        dimension.dim_value = side
    graph = onnx.shape_inference.infer_shapes(graph, data_prop=True).graph
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    shapes = {
        value.name: [side.dim_value or 1 for side in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output, *graph.input)
    }
    total = 0.0
    for node in graph.node:
        weight = next((weights[name] for name in node.input[1:2] if name in weights), None)
        if weight and node.op_type == "Conv":
            total += 2.0 * prod(weight[1:]) * prod(shapes[node.output[0]])
        elif weight and node.op_type == "ConvTranspose":
            total += 2.0 * prod(weight[1:]) * prod(shapes[node.input[0]])
        elif weight and node.op_type in ("Gemm", "MatMul"):
            total += 2.0 * prod(weight)
    return total


def codecs(photos: Photos) -> float:
    """Images/s of all cores that decode a photo and encode it again."""
    contents = [file.read_bytes() for file in photos]

    def again(data: bytes) -> None:
        simplejpeg.encode_jpeg(simplejpeg.decode_jpeg(data, "RGB"), 92, colorsubsampling="420")

    with ThreadPoolExecutor(CORES) as pool:
        return len(contents) * per_second(lambda: list(pool.map(again, contents)))


if __name__ == "__main__":
    main()
