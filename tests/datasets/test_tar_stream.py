"""A small archive that asks for gigabytes gets none: its good samples come, then a problem, in bounded memory."""

from __future__ import annotations

import gzip
import io
import tarfile
import time
from pathlib import Path

import pytest

from anonlib.datasets import Sample
from anonlib.datasets.webdataset import read_tar
from tests.support import bombs

READ = """
from anonlib.datasets.webdataset import read_tar
with open(sys.argv[1], 'rb') as stream:
    for sample in read_tar(stream, 'shard'): print(sample.key, '|', sample.problem)
"""
# Python with Arrow takes 100 MiB, what reads a tar few; a sample may have 256.
MOST_MIB = 180.0


def read(data: bytes) -> list[Sample]:
    return list(read_tar(io.BytesIO(data), "shard"))


def ended(data: bytes) -> str:
    """The problem that follows a good first sample; a second is lost, since only what comes next would end it."""
    first, bad = read(bombs.photo_members("first") + bombs.photo_members("second") + data)
    assert first.problem is None and bad.key == "shard#truncated"
    return str(bad.problem)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_an_extended_header_of_hundreds_of_megabytes_is_not_read(kind: bytes, tmp_path: Path) -> None:
    """It was: with a gigabyte, 3,098 MiB for 1 MB of input."""
    bomb = bombs.long_header_tar(tmp_path / "bomb.tar.gz", kind)
    assert bomb.stat().st_size < 2 << 20
    said, peak = bombs.peak_of(READ, bomb)
    first, bad = said.splitlines()
    assert first == "first | None" and "extended headers are larger" in bad
    assert peak < MOST_MIB


def test_a_member_that_unpacks_to_a_thousand_times_its_size_ends_the_archive(tmp_path: Path) -> None:
    bomb = bombs.endless_tar(tmp_path / "bomb.tar.gz", 512)
    began = time.monotonic()
    said, peak = bombs.peak_of(READ, bomb)
    assert "unpacks to more than 100 times its size" in said.splitlines()[-1]
    assert peak < MOST_MIB and time.monotonic() - began < 30


def test_a_sample_of_many_fat_members_is_a_problem_and_not_in_memory(tmp_path: Path) -> None:
    said, peak = bombs.peak_of(READ, bombs.fat_sample_tar(tmp_path / "bomb.tar.gz", members=20, mebibytes=14))
    assert "larger than 256 MiB" in said or "unpacks to more than" in said
    assert peak < 256 + MOST_MIB


def test_a_sample_has_no_more_members_than_it_may() -> None:
    members = b"".join(bombs.header(f"a.m{number}", 0) for number in range(2000))
    (sample,) = read(members + bytes(1024))
    assert str(sample.problem) == "the sample has more than 1,024 members" and sample.fields == {}


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_chain_of_extended_headers_is_no_recursion_without_end(kind: bytes) -> None:
    assert "extended headers" in ended(bombs.header("x", 0, kind) * 10_000 + bytes(1024))


def test_global_headers_do_not_pile_up() -> None:
    pair = bombs.header("x", 0, tarfile.XGLTYPE) + bombs.photo_members("a")
    assert "extended headers" in str(read(pair * 40 + bytes(1024))[-1].problem)


def test_a_sparse_member_is_refused_before_its_map_is_read() -> None:
    assert "a member is sparse" in ended(bombs.header("a.jpg", 512, tarfile.GNUTYPE_SPARSE) + bytes(1536))


@pytest.mark.parametrize(
    ("records", "problem"),
    [
        ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, "a member is sparse"),
        ({"GNU.sparse.map": "0,1"}, "a member is sparse"),
        ({"GNU.sparse.size": "9"}, "a member is sparse"),
        ({"size": "-512"}, "negative size"),
    ],
)
def test_a_record_that_changes_what_a_member_is_is_refused(records: dict[str, str], problem: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        made = tarfile.TarInfo("a.jpg")
        made.pax_headers = records
        archive.addfile(made)
    assert problem in ended(out.getvalue())


def test_a_name_without_end_is_a_problem_of_its_sample_and_shortened_in_its_key() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for ending in ("x", "y"):
            archive.addfile(tarfile.TarInfo("n" * 5000 + f"{ending}.jpg"))
    first, second = read(out.getvalue())
    for sample in (first, second):
        assert str(sample.problem) == "the name of a member has more than 1,024 characters" and len(sample.key) < 200
    assert first.key != second.key


def test_a_hundred_thousand_samples_of_one_key_are_told_apart_soon() -> None:
    began = time.monotonic()
    samples = read(bombs.header("a.jpg", 0) * 20_000 + bytes(1024))
    assert len({sample.key for sample in samples}) == 20_000
    assert time.monotonic() - began < 30


def test_a_compressed_archive_of_photos_is_read_as_before() -> None:
    parts = [bombs.photo_members(f"{number:03d}") for number in range(20)]
    # Two parts of gzip one after another are one stream (RFC 1952).
    packed = gzip.compress(b"".join(parts[:10])) + gzip.compress(b"".join(parts[10:]) + bytes(1024))
    assert [sample.problem for sample in read(packed)] == [None] * 20
