"""The images that a person looks through for faces left as they were, drawn at random.

Images are ordered by a keyed digest of their names, which cannot be foreseen without the secret, and a second draw
gives the same images. The first m of them are a fair sample of m, and a longer sample begins with the shorter one. How
many to judge is to be settled before the first.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from anonlib.privacy.keys import Keyring, Purpose
from anonlib.storage import Storage
from anonlib.workspace.layout import ReleaseStore
from anonlib.workspace.schemas import QUARANTINED

_COLUMNS = ("key", "status", "path", "output_sha256")


@dataclass(frozen=True)
class ReviewSample:
    """An image that has an output: row `row` of its shard's manifest, as that row names it."""

    shard: str
    row: int
    key: str
    status: str
    path: str
    output_sha256: str


def candidates(release: Storage, shards: Iterable[str]) -> Iterator[ReviewSample]:
    """Every image of a release that has an output (`released` and `no_face`), a shard at a time."""
    store = ReleaseStore(release)
    for shard in shards:
        table = store.manifest(shard, _COLUMNS)
        for row, image in enumerate(table.to_pylist()):
            if image["status"] != QUARANTINED:
                yield ReviewSample(shard, row, **image)


def draw_sample(images: Iterable[ReviewSample], n: int, keyring: Keyring) -> list[ReviewSample]:
    """`n` of the images, or all if there are fewer, without replacement and in the order of their digests."""
    return heapq.nsmallest(n, images, key=lambda image: keyring.digest(Purpose.SAMPLE, image.shard, image.key))
