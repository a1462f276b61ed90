"""Models are made ready from archives, whose members are checked, with a toy model whose archive lies in the cache."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from anonlib.errors import ConfigError, ModelError, ModelMissing, ModelUnusable
from anonlib.models import cache
from anonlib.models.cache import check, ensure, model_bytes, model_path, read_members, sha256
from anonlib.models.catalog import MODELS, SETS, ModelCard
from anonlib.models.requirements import check_licences
from anonlib.models.runtime import load_engine
from tests.models import toy_model
from tests.support.runs import job

NAME = toy_model.NAME


def problem() -> str:
    return check([NAME])[NAME]


def test_a_model_is_fetched_converted_checked_and_published_once(toy: Path) -> None:
    lines: list[str] = []
    ensure([NAME], lines.append)
    assert lines == ["getting anonlib-toy-model 1.0 from pip", f"{NAME} is ready"] and problem() == ""
    assert load_engine(model_bytes(NAME))(cache.probe(MODELS[NAME]))[0].shape == (2, 512)
    assert sorted(p.name for p in toy.iterdir()) == ["archives", f"{NAME}.onnx"]
    next((toy / "archives").iterdir()).unlink()
    ensure([NAME], lines.append)
    assert len(lines) == 2


def test_a_missing_model_says_how_to_get_it_with_and_without_network(toy: Path, monkeypatch) -> None:
    by_hand = r"put the file anonlib_toy_model-1\.0-py3-none-any\.whl"
    with pytest.raises(
        ModelMissing, match=rf"Run `anonlib models pull --set [a-z-]+`\. Without network, {by_hand}"
    ) as caught:
        model_bytes(NAME)
    assert str(toy / "archives") in str(caught.value) and problem() == str(caught.value)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    next((toy / "archives").iterdir()).unlink()
    with pytest.raises(ModelError, match=by_hand):
        ensure([NAME])


def test_a_damaged_file_is_reported_refused_and_replaced(toy: Path) -> None:
    ensure([NAME])
    path = model_path(NAME)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(ModelUnusable, match="its sha256 differs"):
        model_bytes(NAME)
    assert "its sha256 differs" in problem()
    ensure([NAME])
    assert problem() == ""


def test_a_model_with_a_wrong_answer_is_not_published(toy: Path, monkeypatch) -> None:
    stored = [dict(o, first=[v + 1 for v in o["first"]]) for o in cache.stored()[NAME]]
    monkeypatch.setitem(cache.stored(), NAME, stored)
    with pytest.raises(ModelUnusable, match=r"is off its stored answer.*not kept"):
        ensure([NAME])
    assert sorted(p.name for p in toy.iterdir()) == ["archives"]


def test_two_processes_may_fetch_at_once(toy: Path) -> None:
    script = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); from tests.models import toy_model;"
        "toy_model.install(pathlib.Path(sys.argv[2]) / 'archives');"
        "from anonlib.models.cache import ensure; print('go', flush=True); sys.stdin.readline();"
        "ensure([toy_model.NAME])"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parents[2]), str(toy)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(command, **pipes) for _ in range(2)]
    assert [racer.stdout.readline() for racer in racers] == ["go\n"] * 2
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    for racer in racers:
        _, errors = racer.communicate(timeout=60)
        assert racer.returncode == 0, errors
    assert problem() == ""
    assert sorted(p.name for p in toy.iterdir()) == ["archives", f"{NAME}.onnx"]


GOOD = b"weights"


def card(client: str) -> ModelCard:
    members = {"a/w.bin": sha256(GOOD)}
    return replace(MODELS[NAME], client=client, package="some-package", version="1.2.3", members=members)


def tarball(path: Path, name: str, data: bytes) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return path


def wheel(path: Path, name: str, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, data)
    return path


@pytest.mark.parametrize(("client", "pack", "prefix"), [("pip", wheel, ""), ("npm", tarball, "package/")])
def test_members_are_read_if_they_are_those_of_the_catalogue(
    client: str, pack: Callable[[Path, str, bytes], Path], prefix: str, tmp_path: Path
) -> None:
    assert read_members(pack(tmp_path / "w", f"{prefix}a/w.bin", GOOD), card(client)) == {"a/w.bin": GOOD}
    with pytest.raises(ModelUnusable, match=rf"a/w.bin in w has the sha256 {sha256(b'evil')}.*{sha256(GOOD)}"):
        read_members(pack(tmp_path / "w", f"{prefix}a/w.bin", b"evil"), card(client))
    (tmp_path / "junk").write_bytes(b"not an archive")
    for archive in (pack(tmp_path / "other", "b", GOOD), tmp_path / "junk"):
        with pytest.raises(ModelUnusable, match=r"is not the archive of some-package 1\.2\.3"):
            read_members(archive, card(client))


def test_no_model_judges_what_it_helped_to_make() -> None:
    assert {MODELS[name].use for name in SETS["core"]} == {"pipeline", "verifier"}
    assert not set(SETS["core"]) & set(SETS["evaluation"]) and set(SETS["demo"]) == set(MODELS)
    recognizers = {model.use for model in MODELS.values() if model.role == "recognizer"}
    assert recognizers == {"pipeline", "verifier", "evaluation"}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_card_tells_hashes_terms_and_the_outputs_as_they_are(model) -> None:
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in (model.sha256, *model.members.values()))
    assert model.licence and model.trained_on
    outputs = onnx.load_model_from_string(model_bytes(model.name)).graph.output
    assert [output.name for output in outputs] == list(model.outputs)
    for output, shape in zip(outputs, model.outputs.values(), strict=True):
        sides = output.type.tensor_type.shape.dim[1:]
        assert [side.dim_value for side in sides if side.dim_value] == [n for n in shape if isinstance(n, int)]


def test_non_commercial_weights_must_be_accepted_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "faceres", replace(MODELS["faceres"], commercial=False, licence="CC-BY-NC-4.0"))
    with pytest.raises(ConfigError, match=r"faceres are CC-BY-NC-4\.0.*accept_licences"):
        check_licences(["faceres"], job("in", tmp_path))
    check_licences(["faceres"], job("in", tmp_path, accept_licences=["faceres"]))
    check_licences(["centerface"], job("in", tmp_path))
