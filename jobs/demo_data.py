"""A small labelled dataset of people who never lived, for the demo and the tests.

A demo of anonymization needs faces that nobody minds seeing. `face-gan` (MIT, trained on rendered faces) draws heads
of nobody: a latent is an identity, and a little noise on the latent is another photo of it. demo_people.py lists the
identities and how they were chosen, which is why no error rate can be read off this dataset; demo_photo.py makes a
photo of a head. Here the photos are planned, labelled and packed.

The JPEGs carry EXIF with a position, and the sidecars a device serial, as real ones do and no release should. The
same generator output gives the same bytes.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from demo_people import LATENT, PEOPLE, Floats, f32
from demo_photo import SCENES, Photo, Pixels, Random, compose, one_of, u8
from PIL import Image

Generator = Callable[[Floats], Pixels]
"""Latents (N, LATENT, 1, 1) -> RGB faces (N, FACE, FACE, 3)."""

TRUNCATION = 0.85  # of a latent's length: nearer the mean, fewer broken faces
NOISE = 0.15  # sigma between two photos of one person
PHOTOS_PER_PERSON = 5
GROUPS = 12  # photos of two or three people
EMPTY = 6  # photos of nobody
SHARDS = 4
JPEG_QUALITY = 92


def generator_from_onnx(model: bytes) -> Generator:
    """The catalogued `face-gan`, or any ONNX file from latents (N, LATENT, 1, 1) to images (N, 3, H, W) in -1..1."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def generate(latents: Floats) -> Pixels:
        batch = f32(latents).reshape(-1, LATENT, 1, 1)
        images = np.concatenate([session.run(None, {name: batch[i : i + 32]})[0] for i in range(0, len(batch), 32)])
        return u8(images.transpose(0, 2, 3, 1) / 2 + 0.5)

    return generate


def make_dataset(
    generator: Generator,
    out: Path,
    *,
    people: int = len(PEOPLE),
    photos_per_person: int = PHOTOS_PER_PERSON,
    scenes: Sequence[str] = tuple(SCENES),
    groups: int = GROUPS,
    empty: int = EMPTY,
    astronaut: bool = True,
    shards: int = SHARDS,
    seed: int = 0,
) -> list[Path]:
    """Write demo-000.tar, ... to `out`, WebDataset shards of KEY.jpg and KEY.json; returns their paths.

    A sidecar holds `person` ("p007"; null on a group photo, whose `people` names them from left to right; absent
    where nobody is), `caption`, and `device`. A person's photos are spread over the shards.
    Raises ValueError where more people are asked for than there are, or fewer than a group needs.
    """
    if not 1 <= people <= len(PEOPLE):
        raise ValueError(f"The demo has {len(PEOPLE)} people and {people} were asked for. Ask for 1 to {len(PEOPLE)}.")
    if groups and people < 3:
        raise ValueError(f"A group photo takes 3 people and there are {people}. Ask for more people, or for groups=0.")
    rng = np.random.default_rng(seed)
    photos = _plan(people, photos_per_person, tuple(scenes), groups, empty, rng)
    samples = []
    for number, (photo, faces) in enumerate(zip(photos, _faces(generator, photos, rng), strict=True)):
        pixels, caption = compose(photo, faces, np.random.default_rng((seed, number)))
        samples.append((encode(pixels), {**photo.labels(), "caption": caption, "device": f"CAM-{number % 7:04d}"}))
    if astronaut:
        samples.append(_astronaut())
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for shard, part in enumerate(np.array_split(rng.permutation(len(samples)), shards)):
        paths.append(out / f"demo-{shard:03d}.tar")
        _write_shard(paths[-1], [(f"{shard:03d}{n:05d}", *samples[int(i)]) for n, i in enumerate(part)])
    return paths


def _plan(
    people: int, photos_per_person: int, scenes: tuple[str, ...], groups: int, empty: int, rng: Random
) -> list[Photo]:
    photos = [Photo((index,), one_of(scenes, rng)) for index in range(people) for _ in range(photos_per_person)]
    for group in range(groups):
        together = rng.choice(people, size=2 + group % 2, replace=False)
        photos.append(Photo(tuple(together.tolist()), scenes[group % len(scenes)]))
    return photos + [Photo((), scenes[i % len(scenes)]) for i in range(empty)]


def _faces(generator: Generator, photos: Sequence[Photo], rng: Random) -> list[list[Pixels]]:
    """For each photo the faces of its people, each face drawn once."""
    owners = [index for photo in photos for index in photo.people]
    if not owners:
        return [[] for _ in photos]
    identity = np.stack([PEOPLE[index].latent() for index in owners])
    latents = f32(TRUNCATION * identity + NOISE * rng.standard_normal(identity.shape))
    images = iter(generator(latents.reshape(-1, LATENT, 1, 1)))
    return [[next(images) for _ in photo.people] for photo in photos]


def _astronaut() -> tuple[bytes, dict[str, object]]:
    """One real face: NASA's portrait of an astronaut, in the public domain, as scikit-image ships it."""
    from skimage.data import astronaut

    return encode(astronaut()), {"person": "astronaut", "caption": "A portrait of an astronaut.", "device": "CAM-0000"}


def encode(pixels: Pixels) -> bytes:
    """JPEG with what cameras add: maker, model and a position, at sea where no one lives."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "anonlib", "demo camera"
    position = exif.get_ifd(0x8825)
    position[1], position[2], position[3], position[4] = "N", (0.0, 0.0, 0.0), "W", (0.0, 0.0, 0.0)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY, exif=exif)
    return stream.getvalue()


def _write_shard(path: Path, samples: Sequence[tuple[str, bytes, dict[str, object]]]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, jpeg, fields in samples:
            for name, data in ((f"{key}.jpg", jpeg), (f"{key}.json", json.dumps(fields).encode())):
                member = tarfile.TarInfo(name)  # its defaults: mtime 0, owner 0, mode 644
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def main() -> None:
    """Write the dataset to the folder on the command line, with the generator of the model catalog."""
    parser = argparse.ArgumentParser(description="Write the demo dataset: photos of people who never lived.")
    parser.add_argument("out", type=Path, help="folder for demo-000.tar, ...")
    out: Path = parser.parse_args().out
    from anonlib.models.cache import model_bytes

    for path in make_dataset(generator_from_onnx(model_bytes("face-gan")), out):
        print(path)


if __name__ == "__main__":
    main()
