"""One pass over the photos leaves what scan, plan and render leave, and is taken up after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from anonlib.faces.centerface import CenterFaceDetector
from anonlib.faces.regions import Regions
from anonlib.job import Job
from anonlib.stages.render import RenderStage
from anonlib.stages.scan import ScanStage
from anonlib.storage import open_storage
from anonlib.verification.release import verify
from tests.support import photos
from tests.support.runs import Run, job, lasting, run_job


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tars: people in photos large and small, nobody, a torn photo, and a file that belongs to none."""
    folder = tmp_path_factory.mktemp("mixed")
    shots = [pixels for _, pixels in photos.people(4, 1)]
    for shard in range(2):
        content = [(f"empty-{shard}.jpg", photos.jpeg(photos.nobody()))]
        content += [(f"small-{n}.jpg", photos.jpeg(pixels)) for n, pixels in enumerate(shots[shard::2])]
        large = photos.jpeg(shots[shard].repeat(4, axis=0).repeat(4, axis=1))
        content += [("large.jpg", large), ("large.txt", b"kept"), ("torn.jpg", large[:900]), (".hidden", b"x")]
        photos.tar(folder / f"{shard:05d}.tar", content)
    return folder


def two_passes(source: Path, root: Path, **changes: Any) -> tuple[dict[str, str], dict[str, str]]:
    """The release and the workspace of the stages one after another."""
    running = Job(job(source, root, **changes))
    running.scan()
    running.render(running.make_plan())
    return lasting(root / "release"), lasting(root / "workspace")


@pytest.mark.parametrize(
    "changes", [{"method": {"name": "solid"}}, {"method": {"name": "pixelate"}, "outside": "reencode", "rekey": True}]
)
def test_one_pass_leaves_the_bytes_of_two(changes: dict[str, Any], source: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    once = Job(job(source, tmp_path / "one", **changes), report=lambda stage, outcome, units: seen.append(stage))
    summary = once.run()
    assert seen == ["redact"] * 2
    assert summary.faces > 4 and summary.no_face >= 2 and summary.quarantined == 2 and summary.left_out
    left = lasting(tmp_path / "one" / "release"), lasting(tmp_path / "one" / "workspace")
    assert left == two_passes(source, tmp_path / "two", **changes)
    assert verify(open_storage(str(tmp_path / "one" / "release"))).left_out == summary.left_out


def test_a_pass_that_is_cut_off_anywhere_is_ended_by_the_stages_in_the_same_bytes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = {"method": {"name": "solid"}}
    wanted = two_passes(source, tmp_path / "two", **method)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for number, (of, verb) in enumerate(((ScanStage, "publish"), (RenderStage, "_publish"))):
        root = tmp_path / f"cut-{number}"
        with monkeypatch.context() as patch:
            patch.setattr(of, verb, killed)
            with pytest.raises(KeyboardInterrupt):
                Job(job(source, root, **method)).run()
        assert not list((root / "release").glob("commits/*"))
        Job(job(source, root, **method)).run()
        assert (lasting(root / "release"), lasting(root / "workspace")) == wanted


def test_a_redaction_keeps_no_biometrics(one_shard: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together: list[int] = []
    detect = CenterFaceDetector.detect

    def counted(detector: CenterFaceDetector, images: Any, *more: Any) -> list[Regions]:
        together.append(len(images))
        return detect(detector, images, *more)

    monkeypatch.setattr(CenterFaceDetector, "detect", counted)
    run = run_job(one_shard.input, tmp_path, method={"name": "solid"}, limits={"memory_mib": 1})
    assert set(together) == {1} and len(together) == run.summary.images
    for path in run.workspace.glob("scan/*/faces/*.parquet"):
        table = pq.read_table(path)
        for column in ("embedding", "second", "crop", "mesh", "age", "female"):
            assert table.column(column).null_count == table.num_rows > 0
