"""What a release calls the shards, files and samples of its input: their own names, or with `rekey` pseudonyms.

With `rekey` a release holds no name of the input and no order of names: samples of a shard and shards of a release come
in the order of their pseudonyms. So the n-th row of a manifest is not the n-th sample, and who has the secret finds one
from the other here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anonlib.datasets import Dataset, Shard
from anonlib.privacy.keys import Keyring, Purpose


@dataclass(frozen=True)
class Naming:
    """The names of one job's release."""

    keyring: Keyring
    rekey: bool

    def shard(self, shard_id: str) -> str:
        """The shard's id in run.json, in names of markers and manifests, and of its data."""
        return self.keyring.pseudonym(Purpose.SHARD, shard_id) if self.rekey else shard_id

    def shards(self, shards: Iterable[Shard]) -> dict[str, str]:
        """Id in the release -> id in the input, in the order of the release."""
        named = {self.shard(one.shard_id): one.shard_id for one in shards}
        return dict(sorted(named.items())) if self.rekey else named

    def key(self, shard_id: str, key: str) -> str:
        """The key of a sample in the release."""
        return self.keyring.pseudonym(Purpose.KEY, shard_id, key) if self.rekey else key

    def new_shard(self, shard_id: str) -> str | None:
        """The name that a shard's data gets in the place of its own, if any."""
        return self.shard(shard_id) if self.rekey else None

    def path(self, dataset: Dataset, shard: Shard) -> str:
        """Where the shard's data lies in the release."""
        return dataset.output_path(shard, self.new_shard(shard.shard_id))

    def sorted(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows of a manifest, given in the order of the input, as the release has them."""
        return sorted(rows, key=lambda row: str(row["key"])) if self.rekey else rows

    def keys_of(self, rows: Sequence[Mapping[str, Any]], shard_id: str, keys: Sequence[str]) -> list[str]:
        """For each row of a shard's manifest the key that its sample has in the input, whose `keys` are given in order.

        Raises ValueError if manifest and keys are not of the same samples.
        """
        own = {self.key(shard_id, key): key for key in keys}
        found = [own.get(str(row["key"])) for row in rows]
        known = [key for key in found if key is not None]
        if len(known) != len(rows) or set(known) != set(keys) or len(keys) != len(rows):
            raise ValueError(f"the manifest of shard {shard_id} has {len(rows)} rows, its scan {len(keys)} images")
        return known
