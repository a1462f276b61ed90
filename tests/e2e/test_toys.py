"""What contributors add is one file each: a toy of every kind runs through a whole job."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anonlib.datasets import DATASETS, Dataset, Item, Sample, Shard, ShardWriter
from anonlib.datasets.names import kept_members, shard_id
from anonlib.storage import Storage, open_storage
from anonlib.verification.release import verify
from tests.support import photos
from tests.support.runs import run_job


class LinesDataset(Dataset):
    """A format of one JSON object a line: key, image in base64 and caption."""

    format, noun, media_type, suffixes = "lines", "lines file", "application/jsonl", (".lines",)

    def shards(self) -> list[Shard]:
        return [
            Shard(shard_id(file.name, self.suffixes, ".lines"), file.uri, file.etag, file.size, self.format)
            for file in self.sources()
        ]

    def read(self, shard: Shard) -> Iterator[Sample]:
        lines = self.storage.read(self.name_of(shard), shard.etag).splitlines()
        for position, row in enumerate(map(json.loads, lines)):
            image = base64.b64decode(row["image"])
            yield Sample(row["key"], image, "image", {"caption": row["caption"].encode()}, None, position)

    @classmethod
    def _items(cls, storage: Storage, path: str) -> Iterator[Item]:
        for row in map(json.loads, storage.read(path).splitlines()):
            for name in row.keys() - {"key"}:
                content = base64.b64decode(row[name]) if name == "image" else row[name].encode()
                yield Item(f"{path}: {row['key']}", row["key"], name, content)

    def output_path(self, shard: Shard, name: str | None = None) -> str:
        return f"data/{self.name_of(shard) if name is None else f'{name}.lines'}"

    def writer(
        self, shard: Shard, local_path: Path, keep_fields: frozenset[str], name: str | None = None
    ) -> ShardWriter:
        return LinesWriter(local_path, self.output_path(shard, name), keep_fields)


class LinesWriter(ShardWriter):
    def __init__(self, local_path: Path, release_path: str, keep: frozenset[str]) -> None:
        super().__init__(local_path, release_path)
        self.keep = keep
        self.lines: list[str] = []

    def _entry(self, sample: Sample, image: bytes, key: str | None) -> Any:
        kept = {name: content.decode() for name, content in kept_members(sample.fields, self.keep).items()}
        return {"key": key or sample.key, "image": base64.b64encode(image).decode(), **kept}

    def _add(self, position: int, entry: Any) -> None:
        self.lines.append(json.dumps(entry) + "\n")

    def _finish(self) -> None:
        self._path.write_text("".join(self.lines))

    def _abandon(self) -> None:
        self._path.unlink(missing_ok=True)


def test_a_toy_format_is_read_released_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "lines", LinesDataset)
    (tmp_path / "input").mkdir()
    shots = [("ada", photos.people(1, 1)[0][1]), ("empty", photos.nobody())]
    rows = [
        {"key": key, "image": base64.b64encode(photos.jpeg(pixels)).decode(), "caption": "x"} for key, pixels in shots
    ]
    (tmp_path / "input" / "0.lines").write_text("".join(json.dumps(row) + "\n" for row in rows))
    place = {"uri": str(tmp_path / "input")}
    run = run_job(tmp_path / "input", tmp_path, input=place, method={"name": "solid"})
    assert run.summary.code == 0
    released = [json.loads(line) for line in (run.output / "data" / "0.lines").read_text().splitlines()]
    assert [(row["key"], row["caption"]) for row in released] == [("ada", "x"), ("empty", "x")]
    assert released[0]["image"] != rows[0]["image"]
    verify(open_storage(str(run.output)), None)
