"""Tar shards are read whatever their state, and written so that any WebDataset reader takes them."""

import gzip
import io
import os
import tarfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import webdataset  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from anonlib.codes import Note
from anonlib.datasets import Sample
from anonlib.datasets.webdataset import TarShardWriter, read_tar
from tests.support import photos

Member = tuple[str, bytes]


def tar_bytes(members: Iterable[Member | tarfile.TarInfo], **options: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            header = tarfile.TarInfo(member[0])
            header.size, header.mtime, header.uid, header.uname = len(member[1]), 1_700_000_000, 1000, "alice"
            archive.addfile(header, io.BytesIO(member[1]))
    return out.getvalue()


def link(name: str, kind: bytes, target: str = "/etc/passwd") -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


def read(data: bytes, **options: Any) -> list[Sample]:
    return list(read_tar(io.BytesIO(data), "shard", **options))


def pairs(count: int, size: int = 700) -> list[Member]:
    return [
        (f"{number:03d}.{extension}", bytes([number]) * size) for number in range(count) for extension in ("jpg", "txt")
    ]


def keys(samples: Iterable[Sample]) -> list[str]:
    return [sample.key for sample in samples]


def test_consecutive_members_with_one_base_name_are_one_sample() -> None:
    members = [("a/x.1.JPG", b"1"), ("a/x.seg.txt", b"2"), ("./b.PNG", b"3"), ("README", b"no sample")]
    members += [("._b.png", b"no sample"), ("b.c/y.webp", b"4"), ("dir/.jpg", b"no key"), ("@eaDir/a.jpg", b"-")]
    left_out = Counter[str]()
    samples = read(tar_bytes(members), left_out=left_out)
    assert left_out == {"hidden name": 2, "system folder": 1, "no image: no ending": 1} and read(tar_bytes([])) == []
    assert keys(samples) == ["a/x", "./b", "b.c/y"]
    assert [sample.image_field for sample in samples] == ["1.jpg", "png", "webp"]
    assert [sample.image for sample in samples] == [b"1", b"3", b"4"]
    assert samples[0].fields == {"seg.txt": b"2"}
    assert [sample.position for sample in samples] == [0, 1, 2]
    assert all(sample.problem is None for sample in samples)


def test_a_truncated_gzip_gives_its_good_samples_then_one_problem() -> None:
    # Random bytes, since a compressed half must hold about half of the members.
    packed = gzip.compress(tar_bytes([(name, os.urandom(700)) for name, _ in pairs(10)]))
    *good, bad = read(packed[: len(packed) // 2])
    assert 3 <= len(good) <= 6 and keys(good) == [f"{number:03d}" for number in range(len(good))]
    assert all(sample.problem is None and sample.image for sample in good)
    assert bad.key == "shard#truncated" and bad.image is None and "after member" in str(bad.problem)


@given(st.integers(0, 12_000))
def test_wherever_a_tar_is_cut_no_sample_is_invented_and_the_loss_is_told(length: int) -> None:
    members = pairs(4)
    whole = tar_bytes(members, format=tarfile.USTAR_FORMAT)
    samples = read(whole[:length])
    # A member is a header of 512 bytes, 700 of content and 324 zeros; behind its content a cut looks like a bad writer.
    whole_member = length % 1536 == 0 or length % 1536 >= 512 + 700
    told = [sample for sample in samples if sample.problem is not None or Note.NO_END in sample.notes]
    assert told == ([] if length >= len(members) * 1536 + 512 else samples[-1:])
    assert told == [] or (told[0].problem is None) == (
        (length >= 512 + 700 and whole_member) or length >= len(members) * 1536
    )
    for sample in samples:
        if sample.problem is None:
            assert sample.image == bytes([int(sample.key)]) * 700
            assert sample.fields.get("txt", sample.image if sample in told else b"") == sample.image


def test_a_damaged_header_in_the_middle_is_told_and_not_taken_for_the_end() -> None:
    whole = bytearray(tar_bytes(pairs(6)))
    whole[6 * 1536 + 20] ^= 0xFF
    *good, bad = read(bytes(whole))
    assert keys(good) == ["000", "001"]
    assert bad.problem is not None and "'002' and everything after it is lost" in str(bad.problem)


def test_two_tars_joined_are_told() -> None:
    samples = read(tar_bytes(pairs(2)) + tar_bytes(pairs(3)))
    assert keys(samples) == ["000", "001", "shard#after-end"]
    assert samples[-1].problem is not None


@pytest.mark.parametrize("data", [b"", b"not a tar " * 100, b"\x1f\x8bnot a gzip", tar_bytes(pairs(1))[:100]])
def test_what_is_no_tar_is_one_problem(data: bytes) -> None:
    samples = read(data)
    assert keys(samples) == ["shard#truncated"]
    assert samples[0].problem


@pytest.mark.parametrize("name", ["/abs/x.jpg", "a/../x.jpg", "esc\x1b[31m.jpg", "bad\udcff.jpg", "../noext"])
def test_an_unsafe_name_is_a_problem_with_a_printable_key(name: str) -> None:
    members = [("ok.jpg", b"1"), (name, b"2"), (name.replace("jpg", "txt"), b"2"), ("ok2.jpg", b"3")]
    samples = read(tar_bytes(members if name.endswith("jpg") else members[:2] + members[3:]))
    assert [sample.problem is None for sample in samples] == [True, False, True]
    assert samples[1].key.isprintable() and samples[1].image is None


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_problems_of_their_sample(kind: bytes) -> None:
    samples = read(tar_bytes([link("a.jpg", kind), ("a.json", b"{}"), ("b.jpg", b"1")]))
    assert keys(samples) == ["a", "b"]
    assert samples[0].problem is not None and "link or a device" in str(samples[0].problem)
    assert samples[1].problem is None


def test_every_image_of_a_sample_is_a_photo_unless_the_job_names_some_and_none_is_a_field() -> None:
    members = [("a.txt", b"1"), ("b.jpg", b"2"), ("b.seg.png", b"3"), ("b.jp", photos.jpeg(photos.astronaut()))]
    data = tar_bytes([*members, ("b.txt", b"5"), ("c.jpg", b"4")])
    none, *several, one = read(data)
    assert str(none.problem) == "there is no image; its extensions by WebDataset's rule: .txt"
    assert [(photo.key, photo.own_key, photo.row) for photo in several] == [
        ("b", "b", 1),
        ("b#2", "b", 1),
        ("b#3", "b", 1),
    ]
    assert [photo.image_field for photo in several] == ["jpg", "seg.png", "jp"]
    assert all(photo.fields == {"txt": b"5"} and photo.problem is None for photo in several)
    assert (one.key, one.image, one.position, one.row) == ("c", b"4", 4, 4)
    _, named, one = read(data, image_field="webp;jpg", fields=frozenset({"seg.png"}))
    assert (named.image, named.image_field, named.fields) == (b"2", "jpg", {"txt": b"5"})
    assert named.notes == (Note.NOT_KEPT,) and one.image == b"4"
    assert keys(read(data, image_field="jpg,seg.png")) == ["a", "b", "b#2", "c"]
    assert keys(read(data, image_field="*")) == ["a", "b", "b#2", "b#3", "c"]


@pytest.mark.parametrize("order", ["ab12", "12ab", "1a2b", "b21a"])
def test_members_that_lie_behind_other_samples_rejoin_their_image(order: str) -> None:
    member = {"a": ("a.jpg", b"1"), "b": ("b.jpg", b"2"), "1": ("a.txt", b"x"), "2": ("b.txt", b"y")}
    samples = read(tar_bytes([member[sign] for sign in order]))
    found = sorted((sample.key, sample.image, sample.fields["txt"], sample.problem) for sample in samples)
    assert found == [("a", b"1", b"x", None), ("b", b"2", b"y", None)]


def test_sidecars_too_far_behind_are_one_problem_and_no_photo_is_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anonlib.datasets.webdataset.JOIN_BYTES", 8_000)
    members = pairs(6)
    *photos_, stray = read(tar_bytes(members[::2] + members[1::2]))
    assert keys(photos_) == [f"{number:03d}" for number in range(6)] and all(one.problem is None for one in photos_)
    late = [one for one in photos_ if not one.fields]
    assert 0 < len(late) < 6 and stray.key == "shard#sidecars" and stray.image is None
    assert str(stray.problem).startswith(f"{len(late)} members: sidecars lie too far behind")
    assert keys(read(tar_bytes([("a.jpg", b"1"), ("a.txt", b"x"), ("a.txt", b"x")]))) == ["a", "shard#sidecars"]


def test_a_member_above_the_limit_is_a_problem_and_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anonlib.datasets.base.MAX_SAMPLE_BYTES", 1 << 20)
    large, of_many, good = read(
        tar_bytes([("a.jpg", bytes(1 << 20) + b"1"), *((f"c.{n}", bytes(1 << 18)) for n in range(5)), ("b.jpg", b"2")])
    )
    for sample in (large, of_many):
        assert str(sample.problem) == "the sample is larger than 1 MiB" and sample.fields == {}
    assert good.image == b"2"


def write(path: Path, samples: Iterable[Sample], keep: Iterable[str] = (), **options: Any) -> Path:
    with TarShardWriter(path, f"data/{path.name}", frozenset(keep)) as writer:
        for sample in samples:
            writer.write(sample, sample.image, **options)
    assert writer.outputs() == [(f"data/{path.name}", path)]
    return path


def test_nothing_of_the_input_headers_survives_and_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    samples = read(tar_bytes(pairs(3)))
    for suffix in ("tar", "tar.gz", "tgz"):
        one = write(tmp_path / f"one.{suffix}", samples, ["txt"])
        two = write(tmp_path / f"two.{suffix}", samples, ["txt"])
        assert one.read_bytes() == two.read_bytes()
        assert (one.read_bytes()[:2] == b"\x1f\x8b") == (suffix != "tar")
        with tarfile.open(one) as archive:
            for info in archive:
                assert (info.mtime, info.uid, info.gid, info.mode) == (0, 0, 0, 0o644)
                assert (info.uname, info.gname, info.pax_headers) == ("", "", {})


def test_the_images_of_a_sample_are_written_as_one_under_the_names_that_they_had(tmp_path: Path) -> None:
    members = [("p.Left.JPG", b"1"), ("p.right.jpg", b"1"), ("p.TXT", b"x"), ("Q.JPG", b"2"), ("r.a.jpg", b"3")]
    samples = read(tar_bytes(members))
    path = write(tmp_path / "a.tar", samples, ["txt"])
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["p.Left.JPG", "p.TXT", "p.right.jpg", "Q.JPG", "r.a.jpg"]
    with TarShardWriter(tmp_path / "b.tar", "data/b.tar", frozenset()) as writer:
        writer.write(samples[1], b"new")
    with tarfile.open(tmp_path / "b.tar") as archive:
        assert archive.getnames() == ["p.right.jpg"]


def test_samples_without_an_image_are_absent_and_order_and_problems_are_checked(tmp_path: Path) -> None:
    samples = read(tar_bytes([*pairs(3), ("z.txt", b"")]))
    with TarShardWriter(tmp_path / "a.tar", "data/a.tar", frozenset()) as writer:
        writer.write(samples[0], b"new")
        writer.write(samples[1], None)
        writer.write(samples[2], b"new")
        with pytest.raises(ValueError, match="out of order"):
            writer.write(samples[1], b"new")
        with pytest.raises(ValueError, match="no image"):
            writer.write(samples[3], b"new")
    assert keys(read((tmp_path / "a.tar").read_bytes())) == ["000", "002"]


# The library leaves the file that it opened to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stock_webdataset_reader_opens_our_output(tmp_path: Path) -> None:
    long = "folder/" + "x" * 150
    members = [(f"{long}.jpg", b"1"), (f"{long}.txt", b"one"), ("ünï.png", b"2"), ("ünï.txt", b"two")]
    path = write(tmp_path / "a.tar", read(tar_bytes(members)), ["txt"])
    loaded = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [(one["__key__"], one["txt"]) for one in loaded] == [(long, b"one"), ("ünï", b"two")]
    assert (loaded[0]["jpg"], loaded[1]["png"]) == (b"1", b"2")
