"""YuNet (Wu et al. 2023, Machine Intelligence Research 20), the detector of libfacedetection, out of its library.

The package yuface carries the weights as named arrays of compiled code. They are read from the library's symbols, and
the network is built anew, so that no foreign code runs and threads, precision and GPU are those of every other model.
"""

from __future__ import annotations

import struct

import numpy as np

from anonlib.models.convert.graph import Array, Graph, simplify

_SYMBOLS, _CODE_OR_DATA, _OBJECT = 11, 1, 1
"""ELF's SHT_DYNSYM, SHT_PROGBITS and STT_OBJECT."""
_CHANNELS = 64


def yuface(library: bytes) -> bytes:
    """libfacedetection.so -> image (N, 3, H, W) RGB, H and W multiples of 32, to maps (N, 15, h, w) of the strides 8,
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
