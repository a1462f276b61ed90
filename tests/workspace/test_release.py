"""A row of a manifest is paired with its sample by key, under new keys too, and what is of another job is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from anonlib.errors import JobError
from anonlib.privacy.keys import Keyring
from anonlib.storage import open_storage
from anonlib.workspace.layout import ReleaseStore, ScanStore
from anonlib.workspace.release import Naming, samples_of

FACE = {"method": "solid", "fallback": None, "box": [0, 0, 1, 1]}


def row(key: str, **values: object) -> dict[str, object]:
    return {"key": key, "status": "released", "faces": [], **values}


@pytest.fixture(params=[False, True], ids=["own names", "new keys"])
def naming(request: pytest.FixtureRequest) -> Naming:
    return Naming(Keyring(b"thirty-two bytes or more of a secret", "salt"), request.param)


@pytest.fixture
def stores(tmp_path: Path, naming: Naming) -> tuple[ReleaseStore, ScanStore]:
    """Three samples: `b` first, `a` with two faces, and `c` quarantined though it has one."""
    storage = open_storage(str(tmp_path))
    scan, release = ScanStore(storage, "scan/x"), ReleaseStore(storage)
    images = [{"key": key, "position": number, "faces": 0} for number, key in enumerate("bac")]
    faces = [{"face_id": f"{key}{index}", "key": key, "index": index} for key, index in (("a", 1), ("a", 0), ("c", 0))]
    scan.write("00000", faces, images)
    rows = [row("b"), row("a", faces=[FACE, FACE]), row("c", status="quarantined")]
    rows = [each | {"key": naming.key("00000", str(each["key"]))} for each in rows]
    storage.create("run.json", b"{}")
    release.create_manifest(naming.shard("00000"), naming.sorted(rows))
    return release, scan


def test_samples_come_in_the_order_of_the_input_with_their_rows_and_faces(
    naming: Naming, stores: tuple[ReleaseStore, ScanStore]
) -> None:
    samples = samples_of(*stores, naming, "00000", images=("faces",), faces=("face_id",))
    assert [(sample.number, sample.key) for sample in samples] == [(0, "b"), (1, "a"), (2, "c")]
    assert [sample.row["key"] for sample in samples] == [naming.key("00000", sample.key) for sample in samples]
    assert [[face["face_id"] for face in sample.faces] for sample in samples] == [[], ["a0", "a1"], ["c0"]]
    assert [sample.quarantined for sample in samples] == [False, False, True]
    assert [len(sample.faces) for sample in samples_of(*stores, naming, "00000", manifest=("path",))] == [0, 0, 0]


SPOILED: dict[str, tuple[Callable[[ReleaseStore, ScanStore], object], str]] = {
    "another image": (lambda release, scan: scan.write("00000", [], [{"key": "z", "position": 0}]), "not of one job"),
    "a face less": (
        lambda release, scan: scan.write("00000", [], [{"key": key, "position": 0} for key in "abc"]),
        "do not hold the same faces",
    ),
    "no manifest": (
        lambda release, scan: [release.storage.delete(file.path) for file in release.storage.list("manifest/")],
        "a table of shard 00000 is missing",
    ),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_scan_of_another_job_is_refused(what: str, naming: Naming, stores: tuple[ReleaseStore, ScanStore]) -> None:
    spoil, sentence = SPOILED[what]
    spoil(*stores)
    with pytest.raises(JobError, match=sentence):
        samples_of(*stores, naming, "00000", faces=("face_id",))
