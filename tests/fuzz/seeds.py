"""Small files of every kind that the readers take, with a marker in all that is no picture."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, PngImagePlugin, TiffImagePlugin

from anonlib.media.colour import profile_of
from tests.support.photos import jpeg_segment, png_chunk, with_segments

MARKER = b"<planted:0123456789abcdefghijklmnopqrstuvwxyz>"


def smooth(height: int, width: int, channels: int, seed: int = 7) -> np.ndarray:
    """Colours (height, width, channels) with a little noise."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 5, channels), np.uint8)
    grown = [Image.fromarray(small[:, :, c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(channels)]
    noisy = np.stack([np.asarray(plane) for plane in grown], axis=2) + rng.normal(0, 4, (height, width, channels))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x112], tags[0x10F] = orientation, MARKER.decode()
    return tags


RGB = Image.fromarray(smooth(45, 71, 3))
RGBA = Image.fromarray(smooth(33, 47, 4))


def jpegs() -> Iterator[bytes]:
    bodies = [(0xE1, b"http://ns.adobe.com/xap/1.0/\0"), (0xE2, b"MPF\0"), (0xEB, b"JP\0\0c2pa"), (0xFE, b"")]
    bodies += [(0xED, b"Photoshop 3.0\0"), (0xE0, b"JFXX\0\x10"), (0xEF, b"")]
    loaded = [jpeg_segment(marker, body + MARKER) for marker, body in bodies]
    for number, options in enumerate(
        (
            {"quality": 85},
            {"quality": 92, "subsampling": 0},
            {"quality": 75, "subsampling": 1, "restart_marker_blocks": 2},
            {"quality": 60, "progressive": True},
            {"quality": 80, "progressive": True, "subsampling": 0, "restart_marker_rows": 1},
            {"quality": 90, "optimize": True, "keep_rgb": True},
        )
    ):
        more = {"icc_profile": profile_of("Display P3")} if number == 1 else {}
        yield with_segments(_saved(RGB, "JPEG", exif=_exif(number + 1), **options, **more), *loaded) + MARKER
    yield with_segments(_saved(RGB.convert("L"), "JPEG", quality=80), *loaded)
    yield with_segments(_saved(RGB.convert("L"), "JPEG", progressive=True), *loaded)
    yield with_segments(_saved(RGB.convert("CMYK"), "JPEG"), *loaded)
    yield _saved(RGB, "MPO", save_all=True, append_images=[RGB.rotate(180)])


def pngs() -> Iterator[bytes]:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", MARKER.decode())
    text.add_itxt("XML:com.adobe.xmp", MARKER.decode(), zip=True)
    text.add(b"prVt", MARKER)
    text.add(b"caBX", MARKER)
    grey = RGB.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    images = [RGB, grey, RGBA, RGBA.convert("LA"), RGB.convert("P"), RGB.convert("1"), deep]
    for number, image in enumerate(images):
        yield _saved(image, "PNG", pnginfo=text, exif=_exif(number + 1)) + MARKER
    yield _saved(RGB, "PNG", pnginfo=text, icc_profile=profile_of("sRGB"))
    yield _saved(RGB.convert("P"), "PNG", transparency=bytes(range(256)))
    yield _saved(RGB, "PNG", save_all=True, append_images=[RGB.rotate(180)])
    yield from (_plain_png(*kind) for kind in ((8, 2, 1), (16, 2, 0), (16, 6, 1), (2, 0, 1), (4, 3, 0)))


def _plain_png(depth: int, colour: int, interlaced: int) -> bytes:
    """A PNG of noise, 19 x 13 px, of a kind that Pillow does not write."""
    import zlib

    channels = {0: 1, 2: 3, 3: 1, 6: 4}[colour]
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rng, rows = np.random.default_rng(3), b""
    for left, top, across, down in passes if interlaced else ((0, 0, 1, 1),):
        width, height = -(-(19 - left) // across), -(-(13 - top) // down)
        for _ in range(height):
            rows += b"\0" + rng.integers(0, 256, (width * depth * channels + 7) // 8, np.uint8).tobytes()
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 19, 13, depth, colour, 0, 0, interlaced))
    palette = png_chunk(b"PLTE", bytes(range(48))) if colour == 3 else b""
    body = header + png_chunk(b"gAMA", struct.pack(">I", 45455)) + palette + png_chunk(b"tEXt", b"Comment\0" + MARKER)
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def webps() -> Iterator[bytes]:
    for number, options in enumerate(({"quality": 80}, {"lossless": True}, {"quality": 30, "method": 0})):
        yield _saved(RGB, "WEBP", exif=_exif(number + 5), xmp=MARKER, **options) + MARKER
    yield _saved(RGBA, "WEBP", quality=70, xmp=MARKER)
    yield _saved(RGBA, "WEBP", lossless=True, exact=True, icc_profile=profile_of("Display P3"))
    yield _saved(RGB.convert("P").convert("RGB"), "WEBP", lossless=True)
    yield _saved(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(180)])


def others() -> Iterator[bytes]:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = MARKER.decode()
    for options in ({}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}, {"compression": "tiff_deflate"}):
        yield _saved(RGB, "TIFF", tiffinfo=tags, **options)
    yield _saved(Image.fromarray(np.asarray(RGB.convert("L")).astype(np.float32) / 255), "TIFF")
    yield _saved(Image.fromarray(np.asarray(RGB.convert("L")).astype(np.uint16) * 16), "TIFF")
    yield _saved(RGB.convert("CMYK"), "TIFF")
    yield _saved(RGB.convert("1"), "TIFF", compression="group4")
    yield _saved(RGB, "GIF", comment=MARKER)
    yield _saved(RGB, "GIF", save_all=True, append_images=[RGB.rotate(180)])
    for kind in ("BMP", "PPM"):
        yield _saved(RGB, kind)
        yield _saved(RGB.convert("L"), kind)
    yield _saved(RGB.convert("P"), "BMP")
    yield _saved(RGB, "AVIF", quality=60)
    yield _saved(RGBA, "AVIF", quality=60)
    yield _saved(RGB, "JPEG2000")
    yield _saved(RGBA, "JPEG2000", irreversible=True)


SIDECAR = {"caption": "a person", "person": "ada", "id": "a/0001.jpg", "deep": {"x": [1, {"y": None}]}, "n": 1.5}


def _members() -> list[tuple[str, bytes]]:
    photo, png = next(jpegs()), next(pngs())
    found = []
    for number in range(3):
        found += [(f"a/{number:04d}.jpg", photo), (f"a/{number:04d}.json", json.dumps(SIDECAR).encode())]
        found += [(f"a/{number:04d}.txt", b"a person")]
    return [*found, ("b.seg.png", png), ("b.cls", b"3"), ("._b.png", b"apple"), ("2020-01-01 12.30.45.jpg", photo)]


def tars() -> Iterator[bytes]:
    for style in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=style) as archive:
            members = _members()
            if style != tarfile.USTAR_FORMAT:
                members += [("long/" * 30 + "c.jpg", members[0][1]), ("ü/é.jpg", members[0][1])]
            for name, content in members:
                header = tarfile.TarInfo(name)
                header.size = len(content)
                if style == tarfile.PAX_FORMAT:
                    header.pax_headers = {"comment": MARKER.decode(), "SCHILY.xattr.user.x": "y"}
                archive.addfile(header, io.BytesIO(content))
            link = tarfile.TarInfo("l.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "a/0000.jpg"
            archive.addfile(link)
        yield out.getvalue()
        yield gzip.compress(out.getvalue(), mtime=0)
    header = tarfile.TarInfo("s.jpg")
    header.type, header.size = tarfile.GNUTYPE_SPARSE, 512
    yield header.tobuf(tarfile.GNU_FORMAT) + bytes(512) + bytes(1024)


def parquets() -> Iterator[bytes]:
    photo, count = next(jpegs()), 6
    flat = {
        "key": [f"k{number}" for number in range(count)],
        "image": [photo, None, b"no image", photo, photo, b""],
        "caption": ["a person"] * count,
        "deep": [{"x": [1, 2], "y": {"z": "w"}}, None] * 3,
        "when": pa.array([0, 1, 2, None, 4, 5], pa.timestamp("us", "UTC")),
        "kind": pa.array(["a", "b", "a", None, "a", "b"]).dictionary_encode(),
    }
    nested = {"image": [{"bytes": photo, "path": MARKER.decode()}, {"bytes": None, "path": "x.jpg"}, None] * 2}
    nested |= {"label": list(range(count)), "tags": [["a"], [], None] * 2, "map": pa.array(
        [[("a", 1)], None] * 3, pa.map_(pa.string(), pa.int64()))}  # fmt: skip
    features = {b"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}}).encode()}
    for codec in ("NONE", "SNAPPY", "GZIP", "ZSTD", "LZ4", "BROTLI"):
        for number, columns in enumerate((flat, nested)):
            out = io.BytesIO()
            table = pa.table(columns)
            table = table.replace_schema_metadata({b"note": MARKER} | (features if number else {}))
            version = "2.0" if codec == "ZSTD" else "1.0"
            pq.write_table(table, out, compression=codec, row_group_size=4, data_page_version=version)
            yield out.getvalue()


def sidecars() -> Iterator[bytes]:
    yield json.dumps(SIDECAR).encode()
    yield json.dumps([SIDECAR]).encode()
    yield b'{"caption": NaN, "person": 1e308, "id": -0.0, "x": "\\ud800", "caption": {"a": 1}}'
    yield b'\xef\xbb\xbf{"caption": "bom"}'
    yield '{"caption": "utf-16"}'.encode("utf-16")
    yield b'{"caption": ' + b"[" * 900 + b"]" * 900 + b"}"
    yield b'{"person": ' + b"9" * 4000 + b"}"
    yield "a cäption in a text file\n".encode()


KINDS = {
    "jpeg": jpegs, "png": pngs, "webp": webps, "other": others, "tar": tars, "parquet": parquets, "sidecar": sidecars,
}  # fmt: skip


def seeds() -> dict[str, list[bytes]]:
    """The files of each kind."""
    return {kind: list(files()) for kind, files in KINDS.items()}
