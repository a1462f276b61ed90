"""A job that hides more than faces: text and persons with the real networks, plates with a network of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anonlib.audit.evidence.published import read_published
from anonlib.audit.leaks.scan import OUTSIDE, scan_leaks
from anonlib.audit.report.page import draw
from anonlib.config import load_config
from anonlib.errors import ConfigError, ModelMissing
from anonlib.faces.hidden import KINDS, network_of, seen_in
from anonlib.faces.regions import Regions
from anonlib.job import Job
from anonlib.models.cache import model_bytes, model_path
from anonlib.models.runtime import ON_ONE_CORE
from anonlib.storage import open_storage
from anonlib.terminal import claim_rows
from anonlib.verification.release import unproved, verify
from anonlib.workspace.layout import open_stores
from tests.support import clips, photos
from tests.support.packs import yolo
from tests.support.runs import Run, by_key, run_job

pytestmark = pytest.mark.job
SIGN = np.array([20, 440, 300, 490], np.float32)
"""Where a line of text lies in the photo (4,) px."""


def signed() -> NDArray[np.uint8]:
    """The astronaut beside a sign with a name on it."""
    photo = photos.astronaut().copy()
    cv2.rectangle(photo, (10, 430), (320, 500), (250, 250, 250), -1)
    cv2.putText(photo, "Anna Quill 0417", (22, 478), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (10, 10, 10), 2, cv2.LINE_AA)
    return photo


def run(tmp_path: Path, pixels: NDArray[np.uint8], kind: str = "PNG", **changes: Any) -> Run:
    source = tmp_path / "input"
    source.mkdir()
    (source / f"a.{kind.lower()}").write_bytes(photos.encoded(pixels, kind))
    return run_job(source, tmp_path, **({"method": {"name": "solid"}, "input": {"uri": str(source)}} | changes))


def found(kind: Literal["text", "person"], pixels: NDArray[np.uint8]) -> Regions:
    of = KINDS[kind]
    opened = of.detector.open(model_bytes(network_of(kind)), side=of.side, score=of.score, where=ON_ONE_CORE)
    return opened.detect([pixels])[0]


@pytest.mark.parametrize(("how", "again"), [("fill", False), ("blur", None)])
def test_text_is_hidden_counted_and_not_found_again(how: str, again: bool | None, tmp_path: Path) -> None:
    done = run(tmp_path, signed(), hide={"face": "solid", "text": how})
    (row,) = by_key(done.output).values()
    texts = [region for region in row["faces"] if region["kind"] == "text"]
    assert any(seen_in(np.array([0, 420, 340, 510]), _as_regions(text["box"])) for text in texts)
    assert {(text["method"], text["fallback"], text["detected_again"]) for text in texts} == {(how, None, again)}
    (out,) = map(photos.decoded, (file.read_bytes() for file in (done.output / "data").iterdir()))
    x0, y0, x1, y1 = SIGN.astype(int)
    ink = (out[y0:y1, x0:x1] < 100).all(axis=2).sum()
    assert ink == 0 and (signed()[y0:y1, x0:x1] < 100).all(axis=2).sum() > 500
    assert how == "blur" or not seen_in(SIGN, found("text", out))
    certificate = verify(open_storage(str(done.output))).certificate
    hidden = certificate.hidden["text"]
    assert (hidden.method, hidden.network, hidden.regions) == (how, "ppocr-det", len(texts))
    assert (certificate.counts.faces, hidden.network in certificate.models) == (1, True)
    assert any("what it missed stays as it was" in text for _, text in claim_rows(certificate))
    assert any("that every text was found" in text for text in unproved(verify(open_storage(str(done.output)))))
    assert not any(line.found for line in scan_leaks(Job(done.config)) if line.name == OUTSIDE)
    ((_, face),) = draw(open_stores(done.config), 40, 0)
    assert (face["kind"], len(read_published(Job(done.config)).faces)) == (None, 1)


def test_nothing_of_a_person_is_left_and_the_face_in_it_keeps_its_row(tmp_path: Path) -> None:
    done = run(tmp_path, photos.astronaut(), "JPEG", hide={"person": "solid"})
    (row,) = by_key(done.output).values()
    kinds = [region["kind"] for region in row["faces"]]
    assert kinds == [None, "person"]
    (out,) = map(photos.decoded, (file.read_bytes() for file in (done.output / "data").iterdir()))
    x0, y0, x1, y1 = (int(np.clip(side, 0, 512)) for side in row["faces"][1]["box"])
    assert (x1 - x0) * (y1 - y0) > 0.5 * 512**2
    assert np.abs(out[y0 + 8 : y1 - 8, x0 + 8 : x1 - 8].astype(int) - 127).max() <= 3


def test_plates_are_found_by_a_network_of_the_users_whose_terms_count(tmp_path: Path) -> None:
    street = np.full((320, 640, 3), 90, np.uint8)
    street[192:224, 320:352] = (255, 0, 0)
    network = yolo(tmp_path / "plates.onnx", licence="AGPL-3.0")
    keys = {"hide": {"plate": {"method": "solid", "path": str(network)}}}
    with pytest.raises(ConfigError, match=r"plate says in its metadata that it is under 'AGPL-3.0'"):
        run(tmp_path, street, **keys)
    (tmp_path / "input" / "a.png").unlink()
    (tmp_path / "input").rmdir()
    done = run(tmp_path, street, **keys, accept_licences=["plate"])
    (row,) = by_key(done.output).values()
    (plate,) = row["faces"]
    assert plate["kind"] == "plate" and seen_in(np.array([300, 180, 370, 235], np.float32), _as_regions(plate["box"]))
    (out,) = map(photos.decoded, (file.read_bytes() for file in (done.output / "data").iterdir()))
    assert not (out == (255, 0, 0)).all(axis=2).any()
    certificate = verify(open_storage(str(done.output))).certificate
    assert certificate.models["plate"]["licence"] == "AGPL-3.0" and certificate.hidden["plate"].regions == 1


def test_text_is_hidden_in_every_frame_of_a_clip(tmp_path: Path) -> None:
    sign = signed()[432:498, 12:318]

    def picture(number: int) -> NDArray[np.uint8]:
        frame = np.full((240, 480, 3), 120, np.uint8)
        frame[60:126, 4 * number : 4 * number + 306] = sign
        return frame

    (tmp_path / "input").mkdir()
    clips.make(tmp_path / "input" / "a.mp4", 8, size=(480, 240), rate=8, picture=picture)
    source = str(tmp_path / "input")
    done = run_job(
        tmp_path / "input", tmp_path, method={"name": "solid"}, input={"uri": source}, hide={"text": "solid"}
    )
    (row,) = by_key(done.output).values()
    texts = [region for region in row["faces"] if region["kind"] == "text"]
    assert texts and all(text["hidden"] == 0 and text["detected_again"] is None for text in texts)
    for before, after in zip(
        clips.frames_of(tmp_path / "input" / "a.mp4"), clips.frames_of(done.output / "data" / "a.mp4"), strict=True
    ):
        assert (before.rgb < 60).all(axis=2).sum() > 500 and not (after.rgb < 60).all(axis=2).any()
    assert verify(open_storage(str(done.output))).certificate.hidden["text"].regions == len(texts)


def _as_regions(box: list[int]) -> Regions:
    return Regions.of_kind("plate", np.array([box], np.float32), np.ones(1, np.float32))


@pytest.mark.parametrize(
    ("hide", "sentence"),
    [
        ({"signs": "fill"}, r"hide.signs: there is no 'signs'"),
        ({"text": "k-diff"}, r"hide.text.method: there is no 'k-diff'"),
        ({"plate": "solid"}, r"hide.plate: needs `path`"),
        ({"text": {"path": "x.onnx"}}, r"hide.text.path: is not a key"),
        ({"face": "fill"}, r"hide.face and method.name both say"),
        ({"person": "fill"}, r"hide.person: would hide faces that spare or input.boxes_ignore keep"),
    ],
)
def test_what_cannot_be_hidden_is_a_sentence_before_the_run(hide: dict[str, Any], sentence: str) -> None:
    places = {name: {"uri": name} for name in ("input", "output", "workspace")}
    with pytest.raises(ConfigError, match=sentence):
        load_config(places | {"method": {"name": "solid"}, "hide": hide, "spare": {"people": "friends"}})


def test_a_missing_network_is_a_sentence_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "centerface.onnx").symlink_to(model_path("centerface"))
    monkeypatch.setenv("ANONLIB_MODELS", str(tmp_path / "models"))
    with pytest.raises(ModelMissing, match=r"ppocr-det is not in .* Run `anonlib models pull --set ppocr-det`"):
        run(tmp_path, signed(), hide={"text": "fill"})
    assert not (tmp_path / "release" / "data").exists()
