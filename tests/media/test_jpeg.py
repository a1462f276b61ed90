"""A JPEG leaves with its own scans under headers of ours, and new pixels change their MCUs and no others."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anonlib.errors import NotExact
from anonlib.media import jpeg

KINDS = [
    {"quality": 90},
    {"quality": 95, "subsampling": 0},
    {"quality": 80, "subsampling": 1},
    {"quality": 75, "progressive": True},
    {"quality": 60, "optimize": True, "restart_marker_blocks": 3},
]
GREY = {"quality": 85, "mode": "L"}


def photo(height: int, width: int, mode: str = "RGB", seed: int = 1, **options: object) -> bytes:
    """A JPEG of smooth colours with some noise."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    noisy = np.clip(np.asarray(small) + rng.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def pixels(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


@pytest.mark.parametrize("options", [*KINDS, GREY], ids=str)
@settings(max_examples=12, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 99))
def test_no_coefficient_outside_the_touched_mcus_changes(
    options: dict[str, object], height: int, width: int, seed: int
) -> None:
    file = photo(height, width, seed=seed, **options)
    frame, rng = jpeg.parse(file), np.random.default_rng(seed)
    before = pixels(file)
    after = before.copy()
    top, left = int(rng.integers(height)), int(rng.integers(width))
    after[top : top + 20, left : left + 12] = rng.integers(0, 256, 3)
    touched = jpeg.touched_mcus(frame, before, after)
    written = jpeg.parse(jpeg.replace_mcus(frame, touched, jpeg.pixels_of(after, frame, touched)))
    for part, old, new in zip(frame.components, jpeg.coefficients(frame), jpeg.coefficients(written), strict=True):
        blocks = touched.repeat(part.down, axis=0).repeat(part.across, axis=1)[: old.shape[0], : old.shape[1]]
        assert (old == new)[~blocks].all()
    assert written.quantization == frame.quantization
    assert (written.marker == 0xC2) == (frame.marker == 0xC2)


def scan_twice(file: bytes) -> bytes:
    frame = jpeg.parse(file)
    return file[: frame.scans[0].data.stop] + file[file.index(b"\xff\xda") : frame.scans[0].data.stop] + b"\xff\xd9"


def twelve_bits(file: bytes) -> bytes:
    return file.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c")


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(scan_twice, id="a scan that overwrites another"),
        pytest.param(twelve_bits, id="12 bits"),
        pytest.param(lambda file: file.replace(b"\xff\xc0", b"\xff\xc9"), id="arithmetic coding"),
        pytest.param(lambda file: file[:200], id="cut off in a header"),
        pytest.param(lambda file: file[:-2], id="no end"),
        pytest.param(lambda file: file[:2] + b"ab" + file[2:], id="bytes between segments"),
        pytest.param(lambda file: file[:2] + 5000 * b"\xff\xfe\x00\x02" + file[2:], id="too many segments"),
        pytest.param(lambda file: b"", id="nothing"),
    ],
)
def test_what_has_room_for_more_than_its_picture_is_refused(broken: object) -> None:
    with pytest.raises(NotExact):
        jpeg.parse(broken(photo(40, 40, quality=90)))  # type: ignore[operator]
