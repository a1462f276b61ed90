"""Small files that ask for gigabytes, and what reading one takes in a process of its own."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support import photos

_ZEROS = bytes(1 << 20)
_MEASURE = """
import sys
def peak():
    # Not getrusage's ru_maxrss, which a process takes over from the one that started it.
    with open("/proc/self/status") as status: return int(status.read().partition("VmHWM:")[2].split()[0]) / 1024
"""


def peak_of(code: str, *arguments: object) -> tuple[str, float]:
    """What `code` prints in a fresh Python, and its peak of resident memory in MiB, decoder processes not counted."""
    whole = f"{_MEASURE}{code}\nprint(peak())"
    done = subprocess.run(
        [sys.executable, "-c", whole, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    *said, peak = done.stdout.splitlines()
    return "\n".join(said), float(peak)


def gzipped(path: Path, parts: Iterable[bytes]) -> Path:
    """A gzip file of these parts, as our writer packs; they need not be in memory together."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as packed, gzip.GzipFile("", "wb", 6, packed, mtime=0) as stream:
        for part in parts:
            stream.write(part)
    return path


def zeros(mebibytes: int) -> Iterator[bytes]:
    return (_ZEROS for _ in range(mebibytes))


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A ustar header."""
    made = tarfile.TarInfo(name)
    made.size, made.type = size, kind
    return made.tobuf(tarfile.USTAR_FORMAT)


def photo_members(name: str) -> bytes:
    """The headers and content of a sample that can be read."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        content = photos.jpeg(photos.nobody()[:32, :32])
        made = tarfile.TarInfo(f"{name}.jpg")
        made.size = len(content)
        archive.addfile(made, io.BytesIO(content))
    return out.getvalue()[: 512 + -(-len(content) // 512) * 512]


def long_header_tar(path: Path, kind: bytes, mebibytes: int = 256) -> Path:
    """Two photos, then an extended header (tarfile.XHDTYPE, GNUTYPE_LONGNAME, ...) of so many MiB."""
    size = mebibytes << 20
    bomb = (header("long", size, kind), *zeros(mebibytes), header("b.jpg", 0), bytes(1024))
    return gzipped(path, (photo_members("first"), photo_members("second"), *bomb))


def fat_sample_tar(path: Path, members: int = 4, mebibytes: int = 256) -> Path:
    """One sample of so many members of so many MiB."""

    def parts() -> Iterator[bytes]:
        for number in range(members):
            yield header(f"fat.{number}", mebibytes << 20)
            yield from zeros(mebibytes)
        yield bytes(1024)

    return gzipped(path, parts())


def endless_tar(path: Path, mebibytes: int) -> Path:
    """Two photos, then a member that is longer than any sample, all zeros."""
    bomb = (header("endless.jpg", mebibytes << 20), *zeros(mebibytes), bytes(1024))
    return gzipped(path, (photo_members("first"), photo_members("second"), *bomb))


def crowded_jpeg(segments: int = 4_000_000) -> bytes:
    """A JPEG behind so many empty APP13 segments."""
    return photos.with_segments(photos.jpeg(photos.nobody()[:32, :32]), b"\xff\xed\x00\x02" * segments)


def chatty_gif(comments: int = 4_000_000) -> bytes:
    """A GIF behind so many comments of a byte each."""
    data = photos.encoded(photos.nobody()[:32, :32], "GIF")
    colours = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    return data[:colours] + b"\x21\xfe\x01x\x00" * comments + data[colours:]


def dictionary_parquet(path: Path, rows: int = 64, mebibytes: int = 64) -> Path:
    """Rows that all have the same image of so many MiB, which is in the file once, and compressed."""
    image = pa.array([bytes(mebibytes << 20)], pa.binary())
    same = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), image)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": same}), path, compression="zstd", store_schema=False)
    return path
