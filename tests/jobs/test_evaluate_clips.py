"""Faces are painted where the truth says, and counted where the portrait shows and not where it is hidden."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from anonlib.config import ClipConfig, DetectorConfig
from anonlib.faces.detect import open_detector
from anonlib.faces.embed import Recognizer
from anonlib.media.clip import clip_info, clip_writer
from anonlib.models.cache import model_bytes
from anonlib.models.runtime import load_engine
from tests.support import photos
from tests.support.clips import LIMITS, frames_of
from tests.support.jobs import script

CLIPS = script("evaluate_clips")


def test_a_portrait_is_counted_where_it_shows_and_not_where_it_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CLIPS, "FRAMES", 4)
    finder = open_detector(DetectorConfig(score=0.3))
    recognizer = Recognizer("dlib-resnet", load_engine(model_bytes("dlib-resnet")))
    picture = photos.astronaut()
    head = (picture, finder.detect([picture])[0].boxes[0], np.full(picture.shape[:2], 255, np.uint8))
    truth = dict(enumerate(CLIPS._painted(tmp_path / "pan.mp4", "pan", [head], 0)["frames"]))
    cv2.imwrite(str(tmp_path / "head.png"), picture[..., ::-1])
    sources = {"0": CLIPS._source(tmp_path / "head.png", finder, [recognizer])}
    counted = CLIPS._looked(tmp_path / "pan.mp4", tmp_path / "pan.mp4", "pan", truth, sources, [finder], [recognizer])
    assert counted == {("pan", what): 4 for what in CLIPS.COUNTED}
    info = clip_info(tmp_path / "pan.mp4", LIMITS)
    with clip_writer(tmp_path / "hidden.mp4", info, None, ClipConfig(), LIMITS) as writer:
        for frame in frames_of(tmp_path / "pan.mp4"):
            x0, y0, x1, y1 = np.rint(truth[frame.index]["0"]).astype(int)
            frame.rgb[max(y0 - 20, 0) : y1 + 20, max(x0 - 20, 0) : x1 + 20] = 127
            writer.write(frame.rgb, frame.time)
    hidden = CLIPS._looked(tmp_path / "hidden.mp4", tmp_path / "pan.mp4", "pan", truth, sources, [finder], [recognizer])
    assert hidden["pan", "alike"] == hidden["pan", "left"] == 0 and hidden["pan", "with a face"] == 4


def test_a_face_that_has_left_or_is_behind_another_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CLIPS, "FRAMES", 9)
    picture = np.full((200, 200, 3), 200, np.uint8)
    head = (picture, np.array([60, 60, 140, 140], np.float32), np.full((200, 200), 255, np.uint8))
    leaving = CLIPS._painted(tmp_path / "leave.mp4", "leave", [head], 0)["frames"]
    assert [bool(faces) for faces in leaving] == [True] * 2 + [False] * 5 + [True] * 2
    crossing = CLIPS._painted(tmp_path / "cross.mp4", "cross", [head, head], 0)["frames"]
    assert [sorted(faces) for faces in crossing][::4] == [["0", "1"], ["1"], ["0", "1"]]
