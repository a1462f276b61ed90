"""The mark of a drawn face: fixed bytes that readers understand, and that come off again without a trace."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anonlib.audit.leaks.images import PART, TRAILING, XMP, carried
from anonlib.audit.leaks.scan import _is_ours
from anonlib.media.codec import decode, encode
from anonlib.media.mark import PACKET, marked, unmarked
from tests.support import photos

SAYS = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"


def written(kind: str, orientation: int = 1, **options: object) -> bytes:
    """A file as anonlib writes it."""
    pixels = photos.astronaut()[:120, :90]
    if options.pop("alpha", False):
        pixels = np.dstack([pixels, np.full(pixels.shape[:2], 128, np.uint8)])
    exif = {"exif": Image.Exif()}
    exif["exif"][0x112] = orientation
    picture = decode(photos.encoded(pixels, kind, **exif, **options), max_mpx=1)
    return encode(picture.rgb, picture, jpeg_quality=92)


FILES = {
    "jpeg": ("JPEG", 1, {}),
    "turned jpeg": ("JPEG", 6, {}),
    "png": ("PNG", 1, {}),
    "turned png with alpha": ("PNG", 3, {"alpha": True}),
    "webp": ("WEBP", 1, {}),
    "turned webp": ("WEBP", 8, {}),
    "lossless webp with alpha": ("WEBP", 1, {"lossless": True, "alpha": True}),
    "lossy webp with alpha": ("WEBP", 1, {"alpha": True}),
}


@pytest.mark.parametrize("name", FILES)
def test_a_marked_photo_says_so_to_readers_and_is_the_same_picture(name: str) -> None:
    kind, orientation, options = FILES[name]
    plain = written(kind, orientation, **dict(options))
    file = marked(plain)
    assert file.count(PACKET) == 1 and unmarked(file) == plain and unmarked(plain) == plain
    with Image.open(io.BytesIO(file)) as shown, Image.open(io.BytesIO(plain)) as before:
        assert SAYS in str(shown.getxmp()) and not before.getxmp()
        assert np.array_equal(np.asarray(shown), np.asarray(before))
        assert shown.getexif().get(0x112) == before.getexif().get(0x112)
    assert carried(file) == carried(plain) == frozenset()


def test_exiftool_reads_the_mark(tmp_path: Path) -> None:
    if not shutil.which("exiftool"):
        pytest.skip("no exiftool on this machine")
    for name, (kind, orientation, options) in FILES.items():
        (tmp_path / name).write_bytes(marked(written(kind, orientation, **dict(options))))
    asked = ["exiftool", "-n", "-json", "-DigitalSourceType", "-Warning", "-Error", *FILES]
    told = json.loads(subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True).stdout)
    assert told == [{"SourceFile": name, "DigitalSourceType": SAYS} for name in FILES]


@pytest.mark.parametrize("name", FILES)
def test_a_packet_with_another_byte_or_at_another_place_is_no_mark(name: str) -> None:
    kind, orientation, options = FILES[name]
    file = marked(written(kind, orientation, **dict(options)))
    other = file.replace(b"compositeWith", b"compositewith")
    assert carried(other) & {XMP, PART, TRAILING} and unmarked(other) == other
    stored = decode(file, max_mpx=1).stored
    assert not _is_ours(marked(file), stored) and _is_ours(file, stored) == (name != "lossy webp with alpha")
