"""A face stays only where two recognizers are sure of one who agreed; in doubt, and for a twin beside, it is hidden."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from anonlib.audit.leaks.scan import LEFT, scan_leaks
from anonlib.errors import ConfigError
from anonlib.job import Job
from anonlib.stages.spare import SURE, Consents
from anonlib.storage import open_storage
from anonlib.verification.release import unproved, verify
from tests.support import photos
from tests.support.runs import Run, by_key, every_byte, images, job, run_job


def near(cosine: float, of: int = 0) -> list[float]:
    """A vector with this cosine to that of person `of`."""
    vector = np.zeros(8)
    vector[of], vector[7] = cosine, np.sqrt(1 - cosine**2)
    return vector.tolist()


def face(first: float, second: float, of: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "key": "a",
        "index": 0,
        "kind": None,
        "presence": 0.9,
        "label": "Ada",
        "mesh": [1.0],
        "embedding": near(first, of),
        "second": near(second, of),
    } | changes


def consents(*names: str) -> Consents:
    """Each photo of another person by its vectors."""
    vectors = np.stack([near(1.0, number) for number in range(len(names))]).astype(np.float32)
    return Consents(names, dict.fromkeys(SURE, vectors))


SURELY, UNSURELY = (0.97, 0.8), [(0.97, 0.7), (0.95, 0.8)]


def spared(rows: list[dict[str, Any]], *names: str) -> list[str | None]:
    consents(*names).spare(rows, forget=False)
    return [row.get("consent") for row in rows]


def test_a_face_stays_by_the_photo_that_it_is_like_and_is_forgotten() -> None:
    row = face(*SURELY, of=1)
    assert spared([row, face(0.3, 0.1)], "ada.jpg", "bea.jpg") == ["bea.jpg", None]
    kept = {name: value for name, value in row.items() if value is not None}
    assert kept == {"key": "a", "index": 0, "kind": "spared", "consent": "bea.jpg"}


@pytest.mark.parametrize("cosines", UNSURELY)
def test_one_recognizer_is_not_enough(cosines: tuple[float, float]) -> None:
    assert spared([face(*cosines)], "ada.jpg") == [None]


def test_what_is_no_face_or_does_not_show_clearly_is_hidden() -> None:
    plate, dim = face(*SURELY, kind="plate"), face(*SURELY, presence=0.2)
    assert spared([plate, dim], "ada.jpg") == [None, None]
    assert spared([{"key": "a", "kind": "plate"}], "ada.jpg") == [None]


def test_of_two_faces_of_one_person_in_a_photo_neither_stays() -> None:
    assert spared([face(*SURELY), face(*SURELY)], "ada.jpg") == [None, None]
    both = [face(*SURELY, of=0), face(*SURELY, of=1)]
    assert spared(both, "ada/1.jpg", "ada/2.jpg") == [None, None]
    assert spared([face(*SURELY, of=0), face(*SURELY, of=1)], "ada.jpg", "bea.jpg") == ["ada.jpg", "bea.jpg"]


def test_a_redaction_forgets_what_told_people_apart() -> None:
    rows = [face(0.3, 0.1)]
    consents("ada.jpg").spare(rows, forget=True)
    assert rows[0]["embedding"] is None and rows[0]["kind"] is None and rows[0]["label"] == "Ada"


@pytest.mark.job
@pytest.mark.parametrize("method", ["k-diff", "solid"])
def test_a_person_who_agreed_stays_and_the_others_do_not(one_shard: Run, method: str, tmp_path: Path) -> None:
    before = {
        name.partition(".")[0]: data for name, data in images(one_shard.input / "00000.tar").items() if "jpg" in name
    }
    photos.fill(tmp_path / "agreed", {"somebody.jpg": before["holiday-003"]})
    found = run_job(
        one_shard.input,
        tmp_path,
        spare={"people": str(tmp_path / "agreed")},
        method={"name": "k-diff", "k": 2, "texture": "average"} if method == "k-diff" else {"name": method},
    )
    rows = by_key(found.output)
    stays = {key: face for key, row in rows.items() for face in row["faces"] if face["fallback"] == "spared"}
    assert "holiday-003" in stays and len(stays) < len(before) - 1
    assert {(face["method"], face["surrogate_digest"], face["k"]) for face in stays.values()} == {("kept", None, None)}
    after = {
        name.partition(".")[0]: data
        for name, data in images(found.output / "data" / "00000.tar").items()
        if "jpg" in name
    }
    for key, data in after.items():
        same = np.array_equal(photos.decoded(data), photos.decoded(before[key]))
        assert same == (key in stays or not rows[key]["faces"])
    verified = verify(open_storage(str(found.output)))
    assert verified.certificate.counts.spared == len(stays)
    assert any("faces that stay agreed" in sentence for sentence in unproved(verified))
    assert not next(line for line in scan_leaks(Job(found.config)) if line.name == LEFT).found
    assert b"somebody" not in every_byte(found.output)
    (path,) = found.workspace.glob("scan/*/faces/*.parquet")
    faces = pq.read_table(path, columns=["kind", "embedding", "consent"]).to_pylist()
    assert {row["consent"] for row in faces if row["kind"] == "spared"} == {"somebody.jpg"}
    assert all((row["embedding"] is None) == (row["kind"] == "spared" or method == "solid") for row in faces)


@pytest.mark.job
def test_a_photo_of_consent_must_show_one_face(one_shard: Run, tmp_path: Path) -> None:
    photos.fill(tmp_path / "agreed", {"place.jpg": photos.jpeg(photos.nobody())})
    with pytest.raises(ConfigError, match=r"spare.people: place.jpg shows 0 faces"):
        Job(job(one_shard.input, tmp_path, spare={"people": str(tmp_path / "agreed")})).scan()
