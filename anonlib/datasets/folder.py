"""A folder of image files: no shards of its own, so it is cut into slices of a few hundred files.

An image's key is its path with the ending, which is unique. Files with the same stem and the ending .txt or .json are
its sidecars (a pattern must match them too). The etag of a slice is a digest over the etags of its files, and is
compared again after reading: an image that changed between scan and render must not be released by what was found in
the old one.
"""

import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from anonlib.codes import Problem, Reason
from anonlib.datasets import base
from anonlib.datasets.base import Dataset, Item, Sample, Shard, ShardWriter, digest_of
from anonlib.datasets.names import (
    CONVERTED,
    converted,
    is_apple_double,
    is_image,
    kept_members,
    key_spellings,
    printable,
    suffix_of,
    why_unsafe,
)
from anonlib.errors import Changed, LinkRefused, NotFound
from anonlib.storage import REFUSED_LINK, Storage, StoredObject

SLICE_IMAGES = 256
READ_AHEAD = 16
SIDECARS = ("txt", "json")


class FolderDataset(Dataset):
    """Image files in a folder and its sub-folders, on disk or S3, with .txt and .json sidecars."""

    format, noun = "folder", "image file"

    @classmethod
    def reads(cls, name: str) -> bool:
        """See Dataset; by its ending, which says that it is an image."""
        return is_image(name) and not is_apple_double(name)

    @classmethod
    def _items(cls, storage: Storage, path: str) -> Iterator[Item]:
        key = path.removeprefix("data/") if path.startswith("data/") else None
        yield Item(path, key, path.rpartition(".")[2].lower(), storage.read(path))

    def shards(self) -> list[Shard]:
        """See Dataset; slices of SLICE_IMAGES images in the order of their paths."""
        sidecars = _sidecars(self._everything())
        images = sorted(self.sources(), key=lambda image: image.path)
        shards = []
        for start in range(0, len(images), SLICE_IMAGES):
            chosen = images[start : start + SLICE_IMAGES]
            stems = dict.fromkeys(_stem(image.path) for image in chosen)
            files = chosen + [sidecar for stem in stems for sidecar in sidecars.get(stem, ())]
            size, paths = sum(file.size for file in files), tuple(file.path for file in files)
            shards.append(Shard(f"files-{start:08d}", self.base, digest_of(files), size, self.format, paths))
        return shards

    def read(self, shard: Shard) -> Iterator[Sample]:
        """See Dataset; raises Changed at the end if a file is not the one in the inventory."""
        sidecars = _sidecars(StoredObject(path, 0, "") for path in shard.files)
        images = [path for path in shard.files if is_image(path)]
        read: dict[str, StoredObject] = {}

        def load(position: int) -> tuple[Sample, list[StoredObject]]:
            path = images[position]
            return self._load(position, path, [entry.path for entry in sidecars.get(_stem(path), ())])

        with ThreadPoolExecutor(READ_AHEAD) as pool:
            for start in range(0, len(images), READ_AHEAD):
                for sample, entries in pool.map(load, range(start, min(start + READ_AHEAD, len(images)))):
                    read |= {entry.path: entry for entry in entries}
                    yield sample
        if digest_of(read[path] for path in shard.files if path in read) != shard.etag:
            raise Changed(f"Files of {shard.uri} have changed since they were listed; start a new run.")

    def _load(self, position: int, path: str, sidecars: list[str]) -> tuple[Sample, list[StoredObject]]:
        sample = Sample(printable(path), None, suffix_of(path), {}, None, position)
        image, entry, sample.problem = self._bytes(path)
        entries = [entry]
        for sidecar in sidecars:
            content, entry, _ = self._bytes(sidecar)
            entries.append(entry)
            if content is not None:
                sample.fields[suffix_of(sidecar)] = content
        if unsafe := why_unsafe(path):
            sample.problem = Problem(Reason.UNSAFE_NAME, f"the file name {unsafe}")
        elif suffix_of(path) in CONVERTED and self.storage.exists(f"{path}.png"):
            sample.problem = Problem(Reason.DUPLICATE_KEY, "it would be released under the name of another image")
        sample.image = None if sample.problem else image
        return sample, entries

    def _bytes(self, path: str) -> tuple[bytes | None, StoredObject, Problem | None]:
        """(content, what was read, None), or (None, what is there, why it is not used)."""
        try:
            entry = self.storage.stat(path)
            if entry.size > base.MAX_SAMPLE_BYTES:
                over = f"the file is larger than {base.MAX_SAMPLE_BYTES >> 20} MiB"
                return None, entry, Problem(Reason.TOO_LARGE, over)
            return self.storage.read(path, entry.etag), entry, None
        except LinkRefused as error:
            return None, StoredObject(path, 0, REFUSED_LINK), Problem(Reason.LINK, str(error))
        except NotFound as error:
            gone = "a file of the shard is gone since it was listed; start a new run for the new data."
            raise Changed(f"In {self.storage.uri} {gone}", path=path) from error

    def output_path(self, shard: Shard, name: str | None = None) -> str:
        """The folder of the release that mirrors the input; each file has its own path in outputs()."""
        return "data"

    def writer(
        self, shard: Shard, local_path: Path, keep_fields: frozenset[str], name: str | None = None
    ) -> ShardWriter:
        """See Dataset; `local_path` becomes a folder of the slice's files."""
        return FolderShardWriter(local_path, self.output_path(shard), keep_fields)


def _stem(path: str) -> str:
    return path.rpartition(".")[0]


def _sidecars(files: Iterable[StoredObject]) -> dict[str, list[StoredObject]]:
    """The sidecars among some files, by their stems."""
    found = defaultdict(list)
    for file in files:
        if suffix_of(file.path) in SIDECARS:
            found[_stem(file.path)].append(file)
    return found


class FolderShardWriter(ShardWriter):
    """A folder at `local_path` with the images and kept sidecars under their paths, or under new keys."""

    def __init__(self, local_path: Path, release_path: str, keep_fields: frozenset[str]) -> None:
        super().__init__(local_path, release_path)
        self._keep = keep_fields
        # An attempt that was killed here may have left its folder.
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir()
        self._names: dict[str, None] = {}

    def _entry(self, sample: Sample, image: bytes, key: str | None) -> dict[str, bytes]:
        stem, ending, renamed = _stem(sample.key), sample.key.rpartition(".")[2], None
        changed = converted(ending, image)
        # The whole old name stays before the new ending, so that a.bmp and a.png are two files.
        name = f"{sample.key}.png" if changed else sample.key
        if key is not None:
            new = "png" if changed else ending.lower()
            renamed = key_spellings(stem, ending, key, new)
            stem, name = key, f"{key}.{new}"
        kept = kept_members(sample.fields, self._keep, renamed)
        return {name: image} | {f"{stem}.{extension}": content for extension, content in kept.items()}

    def _add(self, position: int, entry: dict[str, bytes]) -> None:
        for name, content in entry.items():
            path = self._temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            self._names[name] = None

    def _outputs(self) -> list[tuple[str, Path]]:
        return [(f"{self._release_path}/{name}", self._path / name) for name in self._names]
