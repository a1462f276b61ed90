"""From the files of a package to the ONNX that anonlib runs: which converter each catalogued model needs.

Conversion runs once, when models are pulled. What goes in and what comes out is pinned by sha256 in the catalogue, so
the converters check no input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath

from anonlib.models.catalog import ModelCard
from anonlib.models.convert import networks, tfjs


def to_onnx(model: ModelCard, members: Mapping[str, bytes]) -> bytes:
    """Archive members (path -> bytes) -> ONNX bytes, the same on every machine."""
    first, *rest = (members[path] for path in model.source.members)
    names = [PurePosixPath(path).name for path in model.source.members]
    files = dict(zip(names[1:], rest, strict=True))
    match model.name:
        case "centerface":
            return networks.centerface(first)
        case "fr-feature":
            return networks.fr_feature(first)
        case "age-gender":
            return networks.age_gender(first, rest[0])
        case "dlib-resnet":
            return networks.dlib_resnet(tfjs.read_weights(json.loads(first), files))
        case "expression":
            return networks.expression(tfjs.read_weights(json.loads(first), files))
        case "face-gan":
            return networks.face_gan(first)
        case "facemesh":
            # The third output, contours, repeats mesh points in finer detail that nobody here reads.
            ends = {"Identity_2": ("mesh", (468, 3)), "Identity_1": ("presence", (1,))}
            return tfjs.convert_graph(model.name, first, files, start="input_1", outputs=ends)
        case "faceres":
            faceres: dict[str, tuple[str, tuple[int, ...]]] = {
                "global_pooling/Mean": ("embedding", (1024,)),
                "age_pred/Softmax": ("age", (100,)),
                "gender_pred/Sigmoid": ("gender", (1,)),
            }
            return tfjs.convert_graph(model.name, first, files, start="input_1", outputs=faceres)
        case "mobileface":
            # It normalises its own input; `start` skips that, because `prepare` does it for every model.
            end = {"batchnorm0/add_1": ("embedding", (256,))}
            return tfjs.convert_graph(model.name, first, files, start="mul", outputs=end)
        case _:
            raise ValueError(f"No converter is written for the model {model.name}.")
