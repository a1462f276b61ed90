"""Whatever is in a dataset, every input has one row, no bad one is released, and nothing behind its picture."""

from __future__ import annotations

import io
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anonlib.config import load_config
from anonlib.errors import ConfigError, JobError
from anonlib.job import Job
from tests.support import photos
from tests.support.runs import Run, by_key, contents, every_byte, images, job, manifest, reasons, run_job

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


def test_a_file_of_a_folder_has_one_row_with_its_fate(folder_run: Run) -> None:
    rows, told = by_key(folder_run.output), reasons(folder_run.workspace)
    assert {case.name: (case.status, case.reason or None) for case in CASES} == {
        name: (row["status"], row["reason"]) for name, row in rows.items()
    }
    for case in CASES:
        assert (rows[case.name]["output_sha256"] is None) == (case.status == "quarantined")
        assert (folder_run.output / "data" / case.name).exists() == (case.status != "quarantined")
    assert all(text.isprintable() and "Error" not in text and " at 0x" not in text for text in told.values())


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


# ---- jobs that cannot go on -------------------------------------------------------------------------------------

SOLID: dict[str, Any] = {"method": {"name": "solid"}}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    content = [("a.jpg", photos.jpeg(photos.nobody())), ("b.jpg", photos.jpeg(photos.astronaut()))]
    return photos.tar(tmp_path / "input" / "00000.tar", content).parent


def test_a_changed_input_or_a_new_file_is_refused(source: Path, tmp_path: Path) -> None:
    run_job(source, tmp_path, **SOLID)
    before = contents(tmp_path / "release")
    photos.tar(source / "00000.tar", [("a.jpg", photos.jpeg(photos.astronaut()))])
    with pytest.raises(JobError, match=r"came, went or changed.*new workspace"):
        Job(job(source, tmp_path, **SOLID))
    photos.tar(source / "00001.tar", [("c.jpg", photos.jpeg(photos.nobody()))])
    with pytest.raises(JobError, match="is not the one that the workspace"):
        Job(job(source, tmp_path, **SOLID))
    assert contents(tmp_path / "release") == before


def test_the_output_of_another_job_is_refused(source: Path, tmp_path: Path) -> None:
    run_job(source, tmp_path, **SOLID)
    before = contents(tmp_path / "release")
    changes: tuple[dict[str, Any], ...] = ({"method": {"name": "blur"}}, {"rekey": True}, {"jpeg_quality": 80})
    for change in changes:
        with pytest.raises(JobError, match="holds a release of another job"):
            Job(job(source, tmp_path, **(SOLID | change))).run()
    assert contents(tmp_path / "release") == before


@pytest.mark.parametrize(
    ("output", "workspace"),
    [("same", "same"), ("same/release", "same"), ("same", "same/work"), ("input", "work"), ("input/out", "work")],
)
def test_places_inside_each_other_are_refused(tmp_path: Path, output: str, workspace: str) -> None:
    places = {"input": "input", "output": output, "workspace": workspace}
    with pytest.raises(ConfigError, match="must be separate places"):
        load_config({name: {"uri": str(tmp_path / place)} for name, place in places.items()})


@pytest.mark.parametrize(
    ("output", "workspace", "refused"),
    [
        ("abfs://c/out", "az://c/out/work", True),
        ("abfs://c@acc.dfs.core.windows.net/out", "abfs://c@acc.blob.core.windows.net/out/work", True),
        ("abfs://c/out", "abfs://c@acc.dfs.core.windows.net/out/work", True),
        ("abfs://c@acc.dfs.core.windows.net/out", "abfs://c@other.dfs.core.windows.net/out/work", False),
        ("abfs://c/out", "abfs://c/outside", False),
        ("s3://b/out", "s3://b//out/work", True),
        ("/data/a b", "file:///data/a%20b/work", True),
    ],
)
def test_one_place_in_two_spellings_is_one_place(output: str, workspace: str, refused: bool) -> None:
    places = {name: {"uri": uri} for name, uri in {"input": "a", "output": output, "workspace": workspace}.items()}
    with pytest.raises(ConfigError, match="must be separate places") if refused else nullcontext():
        load_config(places)


def test_an_inventory_that_was_cut_short_is_written_by_the_next_run(source: Path, tmp_path: Path) -> None:
    """The driver may die between the note and the table."""
    Job(job(source, tmp_path, **SOLID)).scan()
    inventory = tmp_path / "workspace" / "inventory.parquet"
    whole = inventory.read_bytes()
    inventory.unlink()
    Job(job(source, tmp_path, **SOLID)).scan()
    assert inventory.read_bytes() == whole
