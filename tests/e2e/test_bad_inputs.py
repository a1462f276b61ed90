"""Whatever is in a dataset, every input has one row, no bad one is released, and nothing behind its picture."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from tests.support import photos
from tests.support.runs import Run, by_key, every_byte, images, manifest, reasons, run_job

TRAILING = b"TRAILING-after-the-end-of-the-image"


@dataclass(frozen=True)
class Case:
    """One file and what must become of it: a status, and the reason where it is quarantined."""

    name: str
    data: bytes
    status: str
    reason: str = ""


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(np.full((32, 32, 3), value, np.uint8)) for value in (0, 120, 240)]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=50)
    return out.getvalue()


def multi_picture(pixels: photos.Pixels, hidden: photos.Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "MPO", save_all=True, append_images=[Image.fromarray(hidden)])
    return out.getvalue()


ASTRONAUT = photos.astronaut()


def cases() -> list[Case]:
    pixels = photos.people(1, 1)[0][1]
    good = photos.jpeg(pixels)
    alpha = np.full(ASTRONAUT.shape[:2], 200, np.uint8)
    alpha[:300, 100:400] = 0
    hidden = photos.encoded(np.dstack([ASTRONAUT, alpha]), "PNG")
    return [
        Case("a-good.jpg", good, "released"),
        Case("b-cut.jpg", good[: len(good) // 2], "quarantined", "damaged"),
        Case("c-empty.jpg", b"", "quarantined", "empty"),
        Case("g-hidden.png", hidden, "no_face"),
        Case("h-moving.gif", animated("GIF"), "no_face"),
        Case("h-pages.tif", animated("TIFF"), "quarantined", "animated"),
        Case("m-huge.png", photos.png_header(30000, 30000), "quarantined", "too-many-pixels"),
        Case("n-text.jpg", b"dear diary, this is no photograph", "quarantined", "not-an-image"),
        Case("o-after.jpg", good + TRAILING + photos.jpeg(ASTRONAUT), "released"),
        Case("q-phone.jpg", multi_picture(pixels, ASTRONAUT), "released"),
        Case("r-still.webp", photos.encoded(pixels, "WEBP"), "released"),
    ]


CASES = cases()


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("folder")
    (root / "input").mkdir()
    for case in CASES:
        (root / "input" / case.name).write_bytes(case.data)
    return run_job(root / "input", root, method={"name": "solid"})


@pytest.fixture(scope="module")
def tar_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same files in a tar, with the names that only a tar can have, and half a tar beside it."""
    root = tmp_path_factory.mktemp("tar")
    good = CASES[0].data
    strange = [
        ("twice.jpg", good),
        ("between.jpg", good),
        ("twice.jpg", photos.jpeg(ASTRONAUT)),
        ("../evil.jpg", good),
        ("/tmp/absolute.jpg", good),
        ("words.txt", b"a sample without an image"),
        ("both.jpg", good),
        ("both.png", b"which one is it?"),
    ]
    photos.tar(root / "input" / "whole.tar", [*((case.name, case.data) for case in CASES), *strange])
    half = photos.tar(root / "half.tar", [(f"h{number}.jpg", good) for number in range(6)]).read_bytes()
    (root / "input" / "half.tar").write_bytes(half[: len(half) // 2])
    return run_job(root / "input", root, method={"name": "solid"})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_file_of_a_folder_has_one_row_with_its_fate(folder_run: Run, case: Case) -> None:
    row = by_key(folder_run.output)[case.name]
    assert row["status"] == case.status, row
    assert (row["output_sha256"] is None) == (case.status == "quarantined")
    assert (folder_run.output / "data" / case.name).exists() == (case.status != "quarantined")
    if case.status == "quarantined":
        assert row["reason"] == case.reason
        told = reasons(folder_run.workspace)[case.name]
        assert told.isprintable() and "Error" not in told and " at 0x" not in told
    else:
        assert row["reason"] is None


def test_a_tar_gives_the_same_answers_and_its_strange_members_are_quarantined_with_a_reason(tar_run: Run) -> None:
    rows = by_key(tar_run.output)
    assert {case.name: rows[case.name.partition(".")[0]]["status"] for case in CASES} == {
        case.name: case.status for case in CASES
    }
    assert rows["twice"]["status"] == "released"
    before_the_cut = [row["status"] for key, row in rows.items() if key.startswith("h") and "-" not in key]
    assert before_the_cut[0] == "released" and before_the_cut.count("quarantined") == 1
    expected = {
        "twice#2": ("duplicate-key", "in this shard already"),
        "../evil": ("unsafe-name", "'..'"),
        "/tmp/absolute": ("unsafe-name", "absolute path"),
        "words": ("no-image", "no image"),
        "half#truncated": ("truncated", "truncated"),
    }
    told = reasons(tar_run.workspace)
    for key, (reason, part) in expected.items():
        assert (rows[key]["status"], rows[key]["reason"]) == ("quarantined", reason), key
        assert part in told[key]
    assert {name for name in images(tar_run.output / "data" / "whole.tar") if name.startswith(("..", "/"))} == set()


@pytest.mark.parametrize("which", ["folder_run", "tar_run"])
def test_no_image_is_lost_and_none_behind_another_is_in_the_release(which: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(which)
    summary = run.summary
    assert summary.images == summary.released + summary.no_face + summary.quarantined == len(manifest(run.output))
    assert summary.code == 3
    assert TRAILING in every_byte(run.input) and TRAILING not in every_byte(run.output)
    tar = run.output / "data" / "whole.tar"
    written = images(tar) if tar.exists() else {path.name: path.read_bytes() for path in tar.parent.iterdir()}
    for name in ("o-after.jpg", "q-phone.jpg"):
        assert written[name].count(b"\xff\xd8\xff") == 1, "a second image is in the file"
        assert written[name].endswith(b"\xff\xd9")
    assert any("further pictures" in (row["metadata_stripped"] or ()) for row in manifest(run.output))
