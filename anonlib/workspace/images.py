"""The pictures of a job: originals by key, and released ones by the sha256 that their manifest row vouches for.

So a released picture needs no secret and no key to be found.
"""

from __future__ import annotations

import io
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cached_property
from tempfile import SpooledTemporaryFile

from anonlib.config import JobConfig
from anonlib.datasets import Dataset, Sample, Shard, open_dataset
from anonlib.errors import JobError
from anonlib.storage import join_uri
from anonlib.workspace.layout import sha256, storage_options
from anonlib.workspace.schemas import DATA
from anonlib.workspace.tables import Row

_IN_MEMORY = 64 << 20


class JobImages:
    """The pictures of the input and the release of a job, whose shards have this format."""

    def __init__(self, job: JobConfig, format: str) -> None:
        self.job, self.format = job, format
        self._path: str | None = None
        self._stream: Iterator[Sample] = iter(())
        self._early: dict[str, tuple[int, int]] = {}
        self._waiting = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self._waiting.close)
        self._count: Counter[str] = Counter()

    def originals(self, shard: Shard, wanted: Collection[str], named: Callable[[str], str] = str) -> dict[str, bytes]:
        """Bytes by what `named` makes of their keys, reading no further than the last wanted one."""
        found: dict[str, bytes] = {}
        left = set(wanted)
        for sample in self._input.read(shard) if left else ():
            name = named(sample.key)
            if name in left and sample.image is not None:
                found[name] = sample.image
            left.discard(name)
            if not left:
                break
        return found

    def released(self, rows: Iterable[Row]) -> dict[str, bytes]:
        """Bytes by sha256, of MANIFEST rows that have an output; what is not there is left out."""
        wanted: dict[str, set[str]] = {}
        for row in rows:
            wanted.setdefault(str(row["path"]), set()).add(str(row["output_sha256"]))
        found: dict[str, bytes] = {}
        for path, left in wanted.items():
            for sample in self._samples(path):
                image = sample.image or b""
                digest = sha256(image)
                if digest in left:
                    found[digest] = image
                    left.remove(digest)
                if not left:
                    break
        return found

    def image(self, path: str, digest: str) -> bytes:
        """The bytes with this sha256 out of the file or folder `path` of the release; raises JobError.

        A file is read once, as its pictures are asked for; those that come earlier wait in a file of this machine.
        """
        if path != self._path:
            self._path, self._stream = path, self._samples(path)
            self._early.clear()
            self._waiting.seek(0)
            self._waiting.truncate()
            self._count.clear()
        if not self._count[digest]:
            for sample in self._stream:
                image = sample.image or b""
                found = sha256(image)
                if found == digest:
                    return image
                self._waiting.seek(0, io.SEEK_END)
                self._early[found] = (self._waiting.tell(), len(image))
                self._waiting.write(image)
                self._count[found] += 1
            raise JobError(
                f"an image in {join_uri(self.job.output.uri, path)} is missing or not the one in its manifest"
            )
        self._count[digest] -= 1
        start, size = self._early[digest]
        self._waiting.seek(start)
        return self._waiting.read(size)

    @cached_property
    def _input(self) -> Dataset:
        return self._open(self.job.input.uri)

    @cached_property
    def _release(self) -> Dataset:
        return self._open(join_uri(self.job.output.uri, DATA.rstrip("/")))

    def _open(self, uri: str) -> Dataset:
        source, options = self.job.input, storage_options(self.job)
        return open_dataset(
            uri, format=self.format, options=options, image_field=source.image_field, key_field=source.key_field
        )

    def _samples(self, path: str) -> Iterator[Sample]:
        """What lies in one file of the release, or for `data` in its whole folder."""
        uri = join_uri(self._release.base, path.removeprefix(DATA.rstrip("/")).lstrip("/")).rstrip("/")
        for shard in self._release.shards():
            if shard.uri.rstrip("/") == uri:
                yield from self._release.read(shard)
