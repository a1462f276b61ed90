"""A forger: somebody who holds a release, can change every file of it, and signs what he made with a key of his own.

`reseal` fixes every hash, count and signature up, so that what a test changed is caught by the condition it breaks and
not by a hash that happens to differ.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anonlib.errors import VerificationError
from anonlib.storage import open_storage
from anonlib.verification.certificate import Certificate, merkle_root, shard_leaf
from anonlib.verification.release import verify
from anonlib.workspace.schemas import FILLS
from tests.support import photos

SHARD, OTHER = "00000", "00001"
TAR, MANIFEST, MARKER = f"data/{SHARD}.tar", f"manifest/{SHARD}.parquet", f"commits/{SHARD}.json"
CLASSES, SURROGATES = "classes.parquet", "surrogates.parquet"
SECRET = b"a secret of the forger's own"
Rows = list[dict[str, Any]]
PHOTO = photos.jpeg(photos.nobody()[:64, :64])


class Forger:
    """A copy of a release below `root`, to be tampered with."""

    def __init__(self, release: Path, root: Path) -> None:
        self.root = root
        shutil.copytree(release, root)

    def path(self, name: str) -> Path:
        return self.root / name

    def json(self, name: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change a JSON file in place, in our spelling."""
        document = json.loads(self.path(name).read_text())
        change(document)
        self.path(name).write_text(json.dumps(document, sort_keys=True, ensure_ascii=False) + "\n")

    def rows(self, name: str, change: Callable[[Rows], Rows | None]) -> None:
        """Change the rows of a table, which keeps its schema."""
        table = pq.read_table(self.path(name))
        rows = table.to_pylist()
        pq.write_table(pa.Table.from_pylist(change(rows) or rows, schema=table.schema), self.path(name))

    def column(self, name: str, column: str, value: Any) -> None:
        """Add a column to a table, the same value in every row."""
        table = pq.read_table(self.path(name))
        pq.write_table(table.append_column(column, pa.array([value] * table.num_rows)), self.path(name))

    def tar(self, name: str, change: Callable[[list[tuple[str, bytes]]], Iterable[tuple[str, bytes]]]) -> None:
        """Change the members of a tar."""
        with tarfile.open(self.path(name)) as archive:
            members = [(info.name, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
        with tarfile.open(self.path(name), "w") as archive:
            for member, content in change(members):
                header = tarfile.TarInfo(member)
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))

    def certificate(self, **changes: Any) -> None:
        """Change the certificate and sign it anew."""
        read = Certificate.from_bytes(self.path("certificate.json").read_bytes())
        self.path("certificate.json").write_bytes(replace(read, **changes).sign(SECRET).to_bytes())

    def method(self, **changes: Any) -> None:
        """Change the method wherever it is written."""
        self.json("run.json", lambda note: note["method"].update(changes))

    def reseal(self, **changes: Any) -> None:
        """Make every hash and count fit what is there now, and sign it; `changes` are fields of the certificate."""
        note = json.loads(self.path("run.json").read_text())
        leaves = []
        totals: dict[str, int] = dict.fromkeys(("replaced", "next_surrogate", "solid", "withheld"), 0)
        for shard in note["shards"]:
            manifest = self.path(f"manifest/{shard}.parquet")
            counts = _counts(pq.read_table(manifest).to_pylist())

            def fit(marker: dict[str, Any], manifest: Path = manifest, counts: dict[str, int] = counts) -> None:
                marker["files"] = {path: sha256(self.path(path)) for path in marker["files"]}
                marker["manifest_sha256"] = sha256(manifest)
                marker["fallbacks"] = counts["fallbacks"]
                marker |= {name: counts[name] for name in ("images", "faces", "released", "no_face", "quarantined")}

            self.json(f"commits/{shard}.json", fit)
            commit = self.path(f"commits/{shard}.json")
            marker = json.loads(commit.read_text())
            leaves.append(shard_leaf(shard, sha256(commit), marker["manifest_sha256"], marker["files"]))
            for name, count in counts.items():
                totals[name] = totals.get(name, 0) + count
        totals.pop("fallbacks")
        read = Certificate.from_bytes(self.path("certificate.json").read_bytes())
        tables = tuple(
            replace(one, sha256=sha256(self.path(one.path)), rows=pq.read_metadata(self.path(one.path)).num_rows)
            for one in read.tables
        )
        fitting = {
            "run_sha256": sha256(self.path("run.json")),
            "method": note["method"],
            "counts": replace(read.counts, **(totals | {"shards": len(note["shards"])})),
            "merkle_root": merkle_root(leaves),
            "tables": tables,
        }
        self.certificate(**(fitting | changes))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _counts(rows: Rows) -> dict[str, int]:
    faces = [(row["status"], face) for row in rows for face in row["faces"] or ()]
    shown = [face for status, face in faces if status != "quarantined"]
    return {
        "images": len(rows),
        "faces": len(faces),
        **{name: sum(row["status"] == name for row in rows) for name in ("released", "no_face", "quarantined")},
        "fallbacks": sum(face["fallback"] in FILLS for _, face in faces),
        "replaced": sum(face["fallback"] is None for face in shown),
        "next_surrogate": sum(face["fallback"] == "next-surrogate" for face in shown),
        "solid": sum(face["fallback"] in FILLS for face in shown),
        "withheld": len(faces) - len(shown),
    }


Tampering = Callable[[Forger], object]


def check(release: Path, key: str | None = None) -> Any:
    """What `anonlib verify` finds."""
    return verify(open_storage(str(release)), key)


def refused(release: Path, sentence: str, key: str | None = None) -> None:
    """Fails unless `anonlib verify` finds a lie that this sentence is a part of."""
    with pytest.raises(VerificationError) as lie:
        check(release, key)
    assert sentence in str(lie.value)


def swap(release: Forger, first: str, second: str) -> None:
    one, two = (release.path(name).read_bytes() for name in (first, second))
    release.path(first).write_bytes(two)
    release.path(second).write_bytes(one)


def faces(rows: Rows, fallback: str | None) -> list[dict[str, Any]]:
    return [face for row in rows for face in row["faces"] if face["fallback"] == fallback]


def face_says(fallback: str | None, /, **changes: Any) -> Tampering:
    """One face with this fallback, in whatever shard there is one, with another word."""

    def tamper(release: Forger) -> None:
        def change(rows: Rows) -> None:
            found = faces(rows, fallback)
            if found and not done:
                done.append(True)
                found[0].update(changes)

        done: list[bool] = []
        for path in sorted(release.path("manifest").iterdir()):
            release.rows(f"manifest/{path.name}", change)
        assert done

    return tamper
