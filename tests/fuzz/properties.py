"""What holds of any bytes that a reader of untrusted input is given; where it does not, a check raises AssertionError.

A check answers `read`, `refused` or, of a photo, `exact`.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from anonlib.datasets import open_dataset
from anonlib.datasets.base import label
from anonlib.datasets.names import kept_members, key_spellings
from anonlib.datasets.webdataset import TarShardWriter, read_tar
from anonlib.errors import DatasetError, ImageProblem, NotExact, OutOfMemory
from anonlib.media import exact, jpeg, png, webp
from anonlib.media.codec import Picture, decode, decoded_bytes
from anonlib.storage import StorageOptions, open_storage
from tests.fuzz.seeds import MARKER

MOST_MPX = 1.0
RUN = 16
KEEP = frozenset({"caption", "json:person", "txt", "deep", "id", "kind", "when", "tags", "map"})


def check_photo(file: bytes, random: Random) -> str:
    """A photo is read or refused; what is exact stays its picture and nothing but its picture."""
    for image_format in exact.FORMATS:
        _check_rewritten(file, exact.Stored(image_format, 1, None))  # type: ignore[arg-type]
    with suppress(OutOfMemory):
        decoded_bytes(file)
    try:
        picture = decode(file, max_mpx=MOST_MPX)
    except ImageProblem:
        return "refused"
    assert picture.rgb.dtype == np.uint8 and picture.rgb.shape == (*picture.size, 3), "pixels of another size"
    if not picture.is_exact:
        return "read"
    check_exact(file, picture)
    if picture.format == "JPEG":
        _check_replaced(file, picture, random)
    return "exact"


def _check_rewritten(file: bytes, stored: exact.Stored) -> None:
    try:
        exact.check(file, stored.format)
    except NotExact:
        return
    clean = exact.rewrite(file, stored)
    assert exact.rewrite(clean, stored) == clean, "a second rewrite differs"


def check_exact(file: bytes, picture: Picture) -> None:
    """The release of an exact photo has its pixels, by Pillow and by us, and no run of what was planted."""
    clean = exact.rewrite(file, picture.stored)
    again = decode(clean, max_mpx=MOST_MPX)
    assert exact.rewrite(clean, again.stored) == clean, "a second rewrite differs"
    # Of a damaged lossless stream libwebp leaves the last px unset, which then differ from time to time.
    unset = 16 if picture.format == "WEBP" and picture.lossless else 0
    assert (again.rgb != picture.rgb).any(axis=2).sum() <= unset, "decoded pixels differ"
    assert again.orientation == picture.orientation, "the orientation differs"
    both = again.alpha is not None, picture.alpha is not None
    assert both[0] == both[1] and (not both[0] or (again.alpha != picture.alpha).sum() <= unset), "alpha differs"
    assert again.is_exact, "its release is not exact"
    shown = [_by_pillow(data) for data in (file, clean)]
    if shown[0] is not None:
        assert shown[1] is not None and (shown[0] != shown[1]).any(axis=2).sum() <= unset, "Pillow's pixels differ"
    assert has_planted(_picture_data(file, picture.format)) or not has_planted(clean), "something planted leaves"


def _picture_data(file: bytes, image_format: str) -> bytes:
    """What is to be decoded: a change may have put there what was planted, and then it is px."""
    if image_format == "JPEG":
        return b"".join(file[scan.data] for scan in jpeg.parse(file).scans)
    return png._read(file)[3] if image_format == "PNG" else webp._read(file)[1]


def has_planted(file: bytes) -> bool:
    """Whether RUN bytes of what was planted are in a file."""
    return any(MARKER[at : at + RUN] in file for at in range(len(MARKER) - RUN + 1))


def _by_pillow(file: bytes) -> np.ndarray | None:
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(file)) as image:
            warnings.simplefilter("ignore")
            return np.asarray(image.convert("RGBA"))
    except Exception:  # noqa: BLE001  it only serves as a second opinion
        return None


def _check_replaced(file: bytes, picture: Picture, random: Random) -> None:
    frame, rng = jpeg.parse(file), np.random.default_rng(random.getrandbits(32))
    (rows, columns), (height, width) = frame.mcu, frame.size
    none, nothing = np.zeros((1, 1), bool), np.zeros((0, rows, columns, 3), np.uint8)
    try:
        anew = exact.replace(file, none, nothing, picture.stored)
    except NotExact:
        return
    assert exact.changed_blocks(file, anew, np.zeros(frame.size, bool)) == 0, "a coefficient coded anew differs"
    assert np.array_equal(decode(anew, max_mpx=MOST_MPX).rgb, picture.rgb), "pixels coded anew differ"
    changed = rng.random((-(-height // rows), -(-width // columns))) < 0.3
    pixels = rng.integers(0, 256, (int(changed.sum()), rows, columns, 3), np.uint8)
    try:
        written = exact.replace(file, changed, pixels, picture.stored)
    except NotExact:
        return
    allowed = changed.repeat(rows, 0).repeat(columns, 1)[:height, :width]
    assert exact.changed_blocks(file, written, allowed) == 0, "a coefficient outside differs"
    assert decode(written, max_mpx=MOST_MPX).is_exact, "a JPEG with new pixels is not exact"
    data = _picture_data(file, "JPEG")
    assert has_planted(data) or not has_planted(written), "something planted leaves with new pixels"


def check_tar(file: bytes, random: Random) -> str:
    """Every sample has a key of its own, in order, and an image or a problem; what is written is read again."""
    with tempfile.TemporaryDirectory() as folder:
        samples = list(read_tar(io.BytesIO(file), "s"))
        _check_samples(samples)
        with TarShardWriter(Path(folder) / "o.tar", "data/o.tar", KEEP) as writer:
            for sample in samples:
                writer.write(sample, sample.image if sample.problem is None else None)
        written = list(read_tar(io.BytesIO((Path(folder) / "o.tar").read_bytes()), "s"))
        good = [sample.key for sample in samples if sample.problem is None]
        assert [sample.key for sample in written] == good, "other keys are read than written"
        (Path(folder) / "i").mkdir()
        (Path(folder) / "i" / "i.tar").write_bytes(file)
        list(open_dataset(f"{folder}/i").items(open_storage(f"{folder}/i", StorageOptions()), "i.tar"))
    return "read" if good else "refused"


def _check_samples(samples: list) -> None:
    keys = [sample.key for sample in samples]
    assert len(set(keys)) == len(keys), "two samples have one key"
    positions = [sample.position for sample in samples if sample.position != -1]
    assert positions == sorted(set(positions)), "samples are out of order"
    for sample in samples:
        assert (sample.image is None) == (sample.problem is not None), "neither image nor problem, or both"
        str(sample.problem).encode()
        sample.key.encode()
        label(sample, "person")
        label(sample, "json:deep.x")


def check_parquet(file: bytes, random: Random) -> str:
    """Every row is a sample or part of one with a problem; what is written is read again."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "i").mkdir()
        (Path(folder) / "i" / "i.parquet").write_bytes(file)
        try:
            dataset = open_dataset(f"{folder}/i")
            (shard,) = dataset.shards()
            samples = list(dataset.read(shard))
            _check_samples(samples)
            good = 0
            with dataset.writer(shard, Path(folder) / "o" / "i.parquet", KEEP) as writer:
                for sample in samples:
                    writer.write(sample, sample.image)
                    good += sample.image is not None
            if good:
                released = open_dataset(f"{folder}/o")
                assert sum(1 for _ in released.read(released.shards()[0])) == good, "other rows are read than written"
            list(dataset.items(dataset.storage, "i.parquet"))
        except DatasetError:
            return "refused"
    return "read" if good else "refused"


def check_sidecar(file: bytes, random: Random) -> str:
    """Whatever stands in a sidecar is kept by name, or left out."""
    from anonlib.datasets import Sample

    sample = Sample("a/0001", b"x", "jpg", {"json": file, "txt": file, "x.json": file})
    label(sample, "person")
    label(sample, "deep.x")
    for renamed in (None, key_spellings("a/0001", "jpg", "new", "jpg")):
        kept = kept_members(sample.fields, KEEP, renamed)
        assert kept["txt"] == file
        assert all(isinstance(value, bytes) for value in kept.values())
    return "read" if "json" in kept else "refused"


CHECKS = {
    **dict.fromkeys(("jpeg", "png", "webp", "other"), check_photo),
    "tar": check_tar,
    "parquet": check_parquet,
    "sidecar": check_sidecar,
}
