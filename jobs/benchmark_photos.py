"""The photos that the benchmark runs on: given ones, or 1280x720 scenes of people who never lived.

Both programs get the same bytes: deface a folder of links to the JPEGs, since it reads files; anonlib tars of them,
since that is what it is for. A job larger than the photos there are repeats them under new names.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from demo_data import PEOPLE, SCENES, Floats, Generator, Photo, Pixels, compose, draw_scene, generator_from_onnx

WIDTH, HEIGHT = 1280, 720
MOST_PEOPLE = 3
NOISE, TRUNCATION = 0.15, 0.85  # as in the demo: two photos of a person differ a little
JPEG_QUALITY = 92
SHARD = 50  # photos a tar
_ENDINGS = (".jpg", ".jpeg")


@dataclass(frozen=True)
class Photos:
    """JPEG files of one size, and that size in px."""

    files: tuple[Path, ...]
    width: int
    height: int

    def repeated(self, many: int) -> Iterator[tuple[str, Path]]:
        """`many` names with a file each, going round."""
        for number in range(many):
            yield f"photo-{number:06d}", self.files[number % len(self.files)]


def given_photos(sources: Sequence[Path], folder: Path, most: int) -> Photos:
    """Up to `most` JPEGs of folders and tars, of the size that most of them have, copied to `folder`.

    Raises ValueError if there is none.
    """
    found: dict[tuple[int, int], list[bytes]] = {}
    for data in _jpegs(sources):
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        found.setdefault((height, width), []).append(data)
    if not found:
        raise ValueError(f"There is no JPEG in {', '.join(map(str, sources))}; give a folder or a tar that holds some.")
    (height, width), _ = Counter({size: len(those) for size, those in found.items()}).most_common(1)[0]
    return Photos(_write(found[height, width][:most], folder), width, height)


def drawn_photos(folder: Path, many: int) -> Photos:
    """`many` scenes with one to three people, drawn on first use and kept in `folder`."""
    files = tuple(folder / f"{number:05d}.jpg" for number in range(many))
    if not all(file.exists() for file in files):
        from anonlib.models.cache import model_bytes

        generator = generator_from_onnx(model_bytes("face-gan"))
        files = _write((draw(number, generator) for number in range(many)), folder)
    return Photos(files, WIDTH, HEIGHT)


def draw(number: int, generator: Generator) -> bytes:
    """The JPEG of one scene; the same number gives the same scene."""
    rng = np.random.default_rng(number)
    people = tuple(int(one) for one in rng.choice(len(PEOPLE), 1 + number % MOST_PEOPLE, replace=False))
    photo = Photo(people, tuple(SCENES)[number % len(SCENES)])
    identity = np.stack([PEOPLE[index].latent() for index in people])
    latents = TRUNCATION * identity + NOISE * rng.standard_normal(identity.shape)
    pixels, _ = compose(photo, list(generator(latents.astype(np.float32))), rng)
    return bytes(simplejpeg.encode_jpeg(_widescreen(pixels, photo.scene, rng), JPEG_QUALITY, colorsubsampling="420"))


def write_tars(photos: Photos, many: int, folder: Path) -> None:
    """00000.tar, ... of SHARD photos each."""
    folder.mkdir(parents=True)
    named = list(photos.repeated(many))
    for start in range(0, many, SHARD):
        with tarfile.open(folder / f"{start // SHARD:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, file in named[start : start + SHARD]:
                tar.add(file, f"{name}.jpg")


def link_files(photos: Photos, many: int, folder: Path) -> None:
    """A folder of links NAME.jpg to the photos."""
    folder.mkdir(parents=True)
    for name, file in photos.repeated(many):
        (folder / f"{name}.jpg").symlink_to(file.resolve())


def _jpegs(sources: Sequence[Path]) -> Iterator[bytes]:
    for source in sources:
        if source.is_dir():
            for file in sorted(source.rglob("*")):
                if file.suffix.lower() in _ENDINGS:
                    yield file.read_bytes()
        else:
            with tarfile.open(source) as tar:
                for member in tar:
                    content = tar.extractfile(member) if member.name.lower().endswith(_ENDINGS) else None
                    if content is not None:
                        yield content.read()


def _write(jpegs: Iterable[bytes], folder: Path) -> tuple[Path, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, data in enumerate(jpegs):
        files.append(folder / f"{number:05d}.jpg")
        files[-1].write_bytes(data)
    return tuple(files)


def _widescreen(pixels: Pixels, scene: str, rng: np.random.Generator) -> Pixels:
    """A wide photo fills the frame and loses its lowest rows; a narrow one stands in a scene of its own kind."""
    height, width = pixels.shape[:2]
    if width / height > 1.4:
        large = cv2.resize(pixels, (WIDTH, round(height * WIDTH / width)), interpolation=cv2.INTER_CUBIC)
        return np.ascontiguousarray(large[:HEIGHT], np.uint8)
    large = cv2.resize(pixels, (round(width * HEIGHT / height), HEIGHT), interpolation=cv2.INTER_CUBIC)
    place: Floats = draw_scene(WIDTH, HEIGHT, scene, rng)
    frame = np.asarray(np.clip(place, 0, 1) * 255, np.uint8)
    left = (WIDTH - large.shape[1]) // 2
    frame[:, left : left + large.shape[1]] = large
    return frame
