"""A release keeps what it does not replace: a file's own data, a JPEG's coefficients, the orientation. Nothing else."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from anonlib.audit.leaks.scan import scan_leaks
from anonlib.audit.missed_faces import look_twice
from anonlib.config import DetectorConfig
from anonlib.faces.detect import open_detector
from anonlib.job import Job
from anonlib.media import exact
from anonlib.media.codec import decode
from anonlib.stages.render_state import ImageState
from anonlib.storage import open_storage
from anonlib.verification.release import verify
from anonlib.workspace.schemas import EXACT, RELEASED
from tests.support import photos
from tests.support.runs import Run, by_key, every_byte, run_job

SECRET = b"SECRET-of-the-camera"
ENCODINGS = {
    "baseline.jpg": {"quality": 88},
    "sampled.jpg": {"quality": 93, "subsampling": 0},
    "progressive.jpg": {"quality": 80, "progressive": True},
}


def with_secrets(file: bytes) -> bytes:
    """A JPEG with a secret in each segment that tells none of its picture, and behind its end."""
    bodies = [(0xE1, b"Exif\0\0MM\0\x2a\0\0\0\x08\0\0"), (0xE1, b"http://ns.adobe.com/xap/1.0/\0"), (0xE2, b"MPF\0")]
    bodies += [(0xEB, b"JP\0\0c2pa"), (0xED, b"Photoshop 3.0\0"), (0xEF, b""), (0xFE, b""), (0xE0, b"JFXX\0\x10")]
    segments = [photos.jpeg_segment(marker, body + SECRET) for marker, body in bodies]
    return photos.with_segments(file, *segments) + SECRET + file[:400]


def turned(pixels: photos.Pixels, orientation: int, kind: str = "JPEG", **options: object) -> bytes:
    """A file that a viewer shows as `pixels`, and keeps them turned."""
    tags = Image.Exif()
    tags[0x112], tags[0x10F] = orientation, SECRET.decode()
    stored = np.ascontiguousarray(exact.as_stored(pixels, orientation))
    return photos.encoded(stored, kind, exif=tags, **options)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    face, place = photos.astronaut(), photos.astronaut()[256:, 256:]
    for name, options in ENCODINGS.items():
        (folder / f"face-{name}").write_bytes(with_secrets(photos.encoded(face, "JPEG", **options)))
        (folder / f"place-{name}").write_bytes(with_secrets(photos.encoded(place, "JPEG", **options)))
    for orientation in (3, 6, 8):
        (folder / f"face-{orientation}.jpg").write_bytes(turned(face, orientation, quality=90))
        (folder / f"place-{orientation}.jpg").write_bytes(turned(place, orientation, quality=90))
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", SECRET.decode())
    for name, pixels in (("face", face), ("place", place)):
        (folder / f"{name}.png").write_bytes(photos.encoded(pixels, "PNG", pnginfo=text))
        (folder / f"{name}.webp").write_bytes(turned(pixels, 6, "WEBP", lossless=True))
    (folder / "place-lossy.webp").write_bytes(turned(place, 1, "WEBP", quality=80))
    return folder


@pytest.fixture(scope="module")
def release(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("exact")
    return run_job(originals, root, input={"uri": str(originals)}, method={"name": "solid"}, keep_fields=[])


def test_a_jpeg_with_a_face_keeps_every_coefficient_away_from_it(release: Run) -> None:
    rows = by_key(release.output)
    for path in release.input.glob("face*.jpg"):
        after, row = (release.output / "data" / path.name).read_bytes(), rows[path.name]
        assert row["status"] == RELEASED and row["outside"] == EXACT
        allowed = np.zeros((row["height"], row["width"]), bool)
        x0, y0, x1, y1 = row["faces"][0]["box"]
        allowed[max(y0 - 40, 0) : y1 + 40, max(x0 - 40, 0) : x1 + 40] = True
        stored = exact.as_stored(allowed, row["orientation"])
        assert exact.changed_blocks(path.read_bytes(), after, stored) == 0
        assert exact.changed_blocks(path.read_bytes(), after, np.zeros_like(stored)) > 100
        seen = decode(after, max_mpx=1).rgb[(y0 + y1) // 2, (x0 + x1) // 2]
        assert np.abs(seen.astype(int) - 127).max() < 12


def test_orientation_is_kept_and_boxes_are_of_the_photo_as_it_is_shown(release: Run) -> None:
    rows = by_key(release.output)
    straight = rows["face-baseline.jpg"]["faces"][0]["box"]
    for orientation in (3, 6, 8):
        row = rows[f"face-{orientation}.jpg"]
        written = Image.open(io.BytesIO((release.output / "data" / f"face-{orientation}.jpg").read_bytes()))
        assert dict(written.getexif()) == {0x112: orientation} and row["orientation"] == orientation
        assert np.abs(np.array(row["faces"][0]["box"]) - straight).max() <= 6


def test_no_secret_leaves_and_whoever_looks_finds_nothing(release: Run) -> None:
    assert SECRET not in every_byte(release.output)
    assert {check.name: check.where for check in scan_leaks(Job(release.config)) if check.found} == {}
    verify(open_storage(str(release.output)))


def in_alpha(pixels: photos.Pixels, colours: photos.Pixels) -> bytes:
    """A PNG of these colours whose alpha is the luminance of `pixels`."""
    alpha = np.maximum(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), 1)
    return photos.encoded(np.dstack([colours, alpha]), "PNG")


@pytest.fixture(scope="module")
def see_through(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face in the alpha of a white image, one in that of a black image, one in colours and alpha."""
    folder, face = tmp_path_factory.mktemp("see-through"), photos.astronaut()
    for name, colours in (("white", np.full_like(face, 255)), ("black", np.zeros_like(face)), ("own", face)):
        (folder / f"{name}.png").write_bytes(in_alpha(face, colours))
    return folder


def shown(data: bytes) -> list[photos.Pixels]:
    picture = decode(data, max_mpx=1)
    return [picture.rgb, picture.over(0), picture.over(128), picture.over(255)]


def test_a_face_in_the_alpha_channel_is_hidden_on_every_background(see_through: Path, tmp_path: Path) -> None:
    detector = open_detector(DetectorConfig())
    run = run_job(see_through, tmp_path, input={"uri": str(see_through)}, method={"name": "solid"}, keep_fields=[])
    for name, row in by_key(run.output).items():
        before, after = (shown((folder / name).read_bytes()) for folder in (see_through, run.output / "data"))
        assert any(map(len, detector.detect(before)))
        assert not any(map(len, detector.detect(after))), name
        ((x0, y0, x1, y1),) = (face["box"] for face in row["faces"])
        assert all(np.ptp(view[y0 + 20 : y1 - 20, x0 + 20 : x1 - 20], axis=(0, 1)).max() == 0 for view in after)
        assert row["outside"] == EXACT
    assert {check.name: check.where for check in scan_leaks(Job(run.config)) if check.found} == {}
    assert look_twice(Job(run.config))[1] == {}


def test_an_alpha_that_still_draws_a_face_is_found(
    see_through: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageState, "leveled", property(lambda state: state.picture))
    run = run_job(see_through, tmp_path, input={"uri": str(see_through)}, method={"name": "solid"}, keep_fields=[])
    found = {check.name: check.found for check in scan_leaks(Job(run.config)) if check.found}
    assert found == {"original px in a face": 3}
