"""Released images found by the sha256 that their manifest row vouches for, so that no secret and no key is needed."""

from __future__ import annotations

import io
import weakref
from collections import Counter
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile

from anonlib.config import JobConfig
from anonlib.datasets import Dataset, Sample, open_dataset
from anonlib.errors import JobError
from anonlib.storage import join_uri
from anonlib.workspace.layout import sha256
from anonlib.workspace.layout import storage_options as options_of

_IN_MEMORY = 64 << 20


class ReleasedImages:
    """Released images by sha256, read once; what comes before it is asked for waits in a file of this machine."""

    def __init__(self, job: JobConfig, format: str) -> None:
        self.job, self.format = job, format
        self._dataset: Dataset | None = None
        self._path: str | None = None
        self._stream: Iterator[Sample] = iter(())
        self._early: dict[str, tuple[int, int]] = {}
        self._waiting = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self._waiting.close)
        self._count: Counter[str] = Counter()

    def image(self, path: str, digest: str) -> bytes:
        """The bytes with this sha256 out of the file or folder `path` of the release; raises JobError."""
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

    def _samples(self, path: str) -> Iterator[Sample]:
        if self._dataset is None:
            source = self.job.input
            self._dataset = open_dataset(
                join_uri(self.job.output.uri, "data"),
                format=self.format,
                options=options_of(self.job),
                image_field=source.image_field,
                key_field=source.key_field,
            )
        uri = join_uri(self._dataset.base, path.removeprefix("data").lstrip("/")).rstrip("/")
        for shard in self._dataset.shards():
            if shard.uri.rstrip("/") == uri:
                yield from self._dataset.read(shard)
