"""Photos that kill, starve or stall a decoder cost a row each; every other photo of the job is released."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from anonlib.media import prefetch
from anonlib.media.codec import Picture
from anonlib.media.sandbox import Decoders
from anonlib.storage import open_storage
from anonlib.verification.release import verify
from tests.support import photos, poison
from tests.support.runs import Run, by_key, reasons, run_job

LIMITS = {"image_mpx": 1, "image_seconds": 3}
SETTINGS: dict[str, Any] = {"method": {"name": "solid"}, "limits": LIMITS}
POISON = {
    "segfault": (poison.poison("segfault"), "decoding it crashed the decoder (signal SIGSEGV)"),
    "sleep": (poison.poison("sleep"), "decoding it took longer than 3 s (limits.image_seconds)"),
    "thirst": (poison.thirsty_tiff(0.3), "decoding it needs more memory than a photo of limits.image_mpx may take"),
    "lie": (poison.poison("beyond"), "decoding it made the decoder answer with what is no photo"),
}
_TESTS = str(Path(poison.__file__).parents[2])


class Counting(Decoders):
    """Poisoned, and remembers how often each file came."""

    def __init__(self) -> None:
        super().__init__(poison.PROGRAM)
        self.asked: Counter[bytes] = Counter()

    def decode(self, data: bytes, **limits: Any) -> Picture:
        self.asked[data] += 1
        return super().decode(data, **limits)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tars, with two poisoned photos and three good ones each."""
    folder = tmp_path_factory.mktemp("poison")
    face = photos.jpeg(photos.astronaut()[:256, 100:356])
    names = sorted(POISON)
    for shard in range(2):
        content = [(f"good-{shard}-0.jpg", face)]
        for number, name in enumerate(names[shard::2], start=1):
            content += [(f"{name}.jpg", POISON[name][0]), (f"good-{shard}-{number}.jpg", face)]
        photos.tar(folder / f"{shard}.tar", content)
    return folder


@pytest.fixture(scope="module")
def serial(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Counter[bytes]]:
    """A serial run, and how often each file was decoded."""
    with pytest.MonkeyPatch.context() as patch:
        decoders = Counting()
        patch.setattr(prefetch, "decode_apart", decoders.decode)
        patch.setattr(prefetch, "header_bytes_apart", decoders.header_bytes)
        run = run_job(source, tmp_path_factory.mktemp("serial"), **SETTINGS)
        decoders.close()
    return run, decoders.asked


def test_poison_is_quarantined_with_its_reason_and_all_else_is_released(serial: tuple[Run, Counter[bytes]]) -> None:
    run, _ = serial
    rows = by_key(run.output)
    told = reasons(run.workspace)
    assert {key: told[key] for key in POISON} == {key: reason for key, (_, reason) in POISON.items()}
    assert {rows[key]["reason"] for key in POISON} == {"crashed", "memory", "time"}
    assert {row["status"] for key, row in rows.items() if key in POISON} == {"quarantined"}
    assert {row["status"] for key, row in rows.items() if key not in POISON} == {"released"}
    assert len(rows) == 10 == run.summary.images
    assert (run.summary.committed, run.summary.quarantined, run.summary.code) == (2, 4, 3)
    verify(open_storage(str(run.output)), None)


def test_poison_is_touched_once(serial: tuple[Run, Counter[bytes]]) -> None:
    _, asked = serial
    assert {asked[data] for data, _ in POISON.values()} == {1}
