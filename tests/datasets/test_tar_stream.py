"""A small archive that asks for gigabytes gets none: its good samples come, then a problem, in bounded memory."""

from __future__ import annotations

import io
import tarfile
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


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_an_extended_header_of_hundreds_of_megabytes_is_not_read(kind: bytes, tmp_path: Path) -> None:
    bomb = bombs.long_header_tar(tmp_path / "bomb.tar.gz", kind)
    assert bomb.stat().st_size < 2 << 20
    said, peak = bombs.peak_of(READ, bomb)
    first, bad = said.splitlines()
    assert first == "first | None" and "extended headers are larger" in bad
    assert peak < MOST_MIB


def test_a_member_that_unpacks_to_a_thousand_times_its_size_ends_the_archive(tmp_path: Path) -> None:
    said, peak = bombs.peak_of(READ, bombs.endless_tar(tmp_path / "bomb.tar.gz", 512))
    assert "unpacks to more than 100 times its size" in said.splitlines()[-1]
    assert peak < MOST_MIB


def test_a_sample_has_no_more_members_than_it_may() -> None:
    members = b"".join(bombs.header(f"a.m{number}", 0) for number in range(2000))
    (sample,) = read(members + bytes(1024))
    assert str(sample.problem) == "the sample has more than 1,024 members" and sample.fields == {}


def record(**records: str) -> bytes:
    """A member whose extended header says this."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.jpg")
        member.pax_headers = {name.replace("_", "."): value for name, value in records.items()}
        archive.addfile(member)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (bombs.header("x", 0, tarfile.XHDTYPE) * 10_000 + bytes(1024), "extended headers"),
        (bombs.header("x", 0, tarfile.GNUTYPE_LONGNAME) * 10_000 + bytes(1024), "extended headers"),
        (bombs.header("a.jpg", 512, tarfile.GNUTYPE_SPARSE) + bytes(1536), "a member is sparse"),
        (record(GNU_sparse_major="1", GNU_sparse_minor="0"), "a member is sparse"),
        (record(GNU_sparse_map="0,1"), "a member is sparse"),
        (record(GNU_sparse_size="9"), "a member is sparse"),
        (record(size="-512"), "negative size"),
    ],
)
def test_a_header_that_no_sample_needs_ends_the_archive(data: bytes, problem: str) -> None:
    """Behind a good sample, and a second that is lost, since only what comes next would end it."""
    first, bad = read(bombs.photo_members("first") + bombs.photo_members("second") + data)
    assert first.problem is None and bad.key == "shard#truncated" and problem in str(bad.problem)


def test_global_headers_do_not_pile_up() -> None:
    pair = bombs.header("x", 0, tarfile.XGLTYPE) + bombs.photo_members("a")
    assert "extended headers" in str(read(pair * 40 + bytes(1024))[-1].problem)


def test_a_name_without_end_is_a_problem_of_its_sample_and_shortened_in_its_key() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for ending in ("x", "y"):
            archive.addfile(tarfile.TarInfo("n" * 5000 + f"{ending}.jpg"))
    first, second = read(out.getvalue())
    for sample in (first, second):
        assert str(sample.problem) == "the name of a member has more than 1,024 characters" and len(sample.key) < 200
    assert first.key != second.key
