"""The images that a person looks through for faces left as they were: drawn by lot, and what can be said afterwards.

The lot of an image is a keyed digest of its name, so nobody without the secret can foresee or choose it, and a second
draw gives the same images. They come in the order of their lots: whoever judges the first m of them has judged a fair
sample of m, and a longer sample begins with the shorter one. How many to judge is to be settled before the first.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from anonlib.privacy.keys import Keyring, Purpose
from anonlib.storage import Storage
from anonlib.workspace.layout import ReleaseStore
from anonlib.workspace.schemas import QUARANTINED

CONFIDENCE = 0.95

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
    """`n` of the images, or all if there are fewer, without replacement and in the order of their lots."""
    return heapq.nsmallest(n, images, key=lambda one: keyring.digest(Purpose.SAMPLE, one.shard, one.key))


def clopper_pearson(wrong: int, n: int, confidence: float = CONFIDENCE) -> float:
    """The largest share of wrong images that `wrong` among `n` judged leave possible: 1 if none was judged.

    The one-sided upper bound of Clopper and Pearson 1934 (Biometrika 26(4)). It is exact for draws with replacement;
    drawing without it, and from a few images, only makes the truth lie lower. Raises ValueError.
    """
    from scipy.stats import beta

    if not 0 <= wrong <= n or not 0 < confidence < 1:
        raise ValueError(f"{wrong} wrong of {n} at confidence {confidence} is no sample that can be judged")
    return 1.0 if wrong == n else float(beta.ppf(confidence, wrong + 1, n - wrong))
