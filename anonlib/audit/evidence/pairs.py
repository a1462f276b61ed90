"""Originals and what became of them, picked out of their shards.

A sample's key leads to its original, under new keys by the secret; the output's sha256 leads to the released image.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from anonlib.config import JobConfig
from anonlib.datasets import Dataset, Shard, open_dataset
from anonlib.errors import JobError, NotFound
from anonlib.storage import join_uri
from anonlib.workspace import tables
from anonlib.workspace.layout import INVENTORY, JobStores, sha256, storage_options


def inventory(stores: JobStores) -> list[Shard]:
    """The job's shards in order; raises JobError where the workspace has no list of them."""
    try:
        rows = tables.from_bytes(stores.workspace.read(INVENTORY)).to_pylist()
    except NotFound:
        raise JobError(f"the workspace {stores.workspace.uri} has no inventory; is this the job's own?") from None
    return [Shard(**(row | {"files": tuple(row["files"] or ())})) for row in rows]


class PairedImages:
    """The input and the release of a job, whose shards have this format."""

    def __init__(self, job: JobConfig, format: str) -> None:
        self.job, self.format = job, format
        self._input = self._open(job.input.uri)
        self._released: Dataset | None = None

    def _open(self, uri: str) -> Dataset:
        source, options = self.job.input, storage_options(self.job)
        fields = {"image_field": source.image_field, "key_field": source.key_field}
        return open_dataset(uri, format=self.format, options=options, **fields)

    def originals(self, shard: Shard, wanted: Collection[str], named: Callable[[str], str] = str) -> dict[str, bytes]:
        """Image bytes by what `named` makes of their keys, reading no further than the last wanted one."""
        found: dict[str, bytes] = {}
        left = set(wanted)
        for sample in self._input.read(shard):
            name = named(sample.key)
            if name in left and sample.image is not None:
                found[name] = sample.image
            left.discard(name)
            if not left:
                break
        return found

    def outputs(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, bytes]:
        """Released image bytes by sha256, of MANIFEST rows that have an output; what is not there is left out."""
        wanted = [(str(row["path"]), str(row["output_sha256"])) for row in rows]
        if not wanted:
            return {}
        if self._released is None:
            self._released = self._open(join_uri(self.job.output.uri, "data"))
        base, digests = self._released.base, {digest for _, digest in wanted}
        uris = {join_uri(base, path.removeprefix("data").lstrip("/")).rstrip("/") for path, _ in wanted}
        found: dict[str, bytes] = {}
        for shard in self._released.shards():
            if shard.uri not in uris:
                continue
            for sample in self._released.read(shard):
                digest = sha256(sample.image or b"")
                if digest in digests:
                    found[digest] = sample.image or b""
                if len(found) == len(digests):
                    return found
        return found
