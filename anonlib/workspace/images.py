"""The images and clips of a job: originals by key, and released ones by the sha256 in their manifest row."""

from __future__ import annotations

import io
import weakref
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from tempfile import SpooledTemporaryFile

from anonlib.config import JobConfig
from anonlib.datasets import Dataset, Shard, open_dataset
from anonlib.errors import JobError
from anonlib.storage import StorageOptions, join_uri, open_storage
from anonlib.workspace.inventory import with_commit
from anonlib.workspace.layout import sha256
from anonlib.workspace.schemas import DATA
from anonlib.workspace.tables import Row

_IN_MEMORY = 64 << 20


class JobImages:
    """The pictures of the input and the release of a job, whose shards have this format."""

    def __init__(self, job: JobConfig, format: str) -> None:
        self.job, self.format = job, format
        self._path: str | None = None
        self._stream: Iterator[tuple[str, bytes]] = iter(())
        self._early: dict[str, tuple[int, int]] = {}
        self._waiting = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self._waiting.close)

    def originals(self, shard: Shard, wanted: Collection[str]) -> dict[str, bytes]:
        """Bytes by key, reading no further than the last wanted one."""
        return _picked(((sample.key, sample.content) for sample in self._input.read(shard)), set(wanted))

    def released(self, rows: Iterable[Row]) -> dict[str, bytes]:
        """Bytes by sha256, of MANIFEST rows that have an output; what is not there is left out."""
        wanted: dict[str, set[str]] = {}
        for row in rows:
            wanted.setdefault(str(row["path"]), set()).add(str(row["output_sha256"]))
        images: dict[str, bytes] = {}
        for path, digests in wanted.items():
            images |= _picked(self._images(path), digests)
        return images

    def image(self, path: str, digest: str) -> bytes:
        """The bytes with this sha256 in `path` of the release, which is read once in any order; raises JobError."""
        if path != self._path:
            self._path, self._stream = path, self._images(path)
            self._early.clear()
            self._waiting.seek(0)
            self._waiting.truncate()
        if digest in self._early:
            start, size = self._early[digest]
            self._waiting.seek(start)
            return self._waiting.read(size)
        for other, image in self._stream:
            if other == digest:
                return image
            self._waiting.seek(0, io.SEEK_END)
            self._early[other] = (self._waiting.tell(), len(image))
            self._waiting.write(image)
        raise JobError(f"an image in {join_uri(self.job.output.uri, path)} is missing or not the one in its manifest")

    @cached_property
    def _input(self) -> Dataset:
        workspace = open_storage(self.job.workspace.uri, self.job.storage.options, private=True)
        return self._open(with_commit(self.job, workspace).input.uri, self.job.storage.input_options)

    @cached_property
    def _release(self) -> Dataset:
        return self._open(join_uri(self.job.output.uri, DATA.rstrip("/")), self.job.storage.options)

    def _open(self, uri: str, options: StorageOptions) -> Dataset:
        fields = {"image_field": self.job.input.image_field, "key_field": self.job.input.key_field}
        return open_dataset(uri, format=self.format, options=options, fields=frozenset(), **fields)

    def _images(self, path: str) -> Iterator[tuple[str, bytes]]:
        """Digests and bytes of the pictures in one file of the release, or for `data` in its whole folder."""
        uri = join_uri(self._release.base, path.removeprefix(DATA.rstrip("/")).lstrip("/")).rstrip("/")
        for shard in self._release.shards():
            if shard.uri.rstrip("/") == uri:
                images = (sample.content or b"" for sample in self._release.read(shard))
                yield from ((sha256(image), image) for image in images)


def _picked(images: Iterable[tuple[str, bytes | None]], wanted: set[str]) -> dict[str, bytes]:
    """The wanted images by name; reads no further than the last of them."""
    picked: dict[str, bytes] = {}
    for name, image in images if wanted else ():
        if name in wanted and image is not None:
            picked[name] = image
        wanted.discard(name)
        if not wanted:
            break
    return picked
