"""A decoder that was taken over can reach nothing: tried inside the real process, and layer by layer."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anonlib.config import LimitsConfig
from anonlib.errors import ImageProblem, SandboxUnavailable
from anonlib.media.sandbox import confinement, process
from anonlib.media.sandbox.process import Decoders, decode_apart, sandbox_layers
from tests.support import photos, poison

LIMITS = LimitsConfig(image_mpx=1, image_seconds=60)
ROOT = Path(poison.__file__).parents[2]
PHOTO = photos.jpeg(photos.nobody()[:32, :32])
EVERYTHING = {
    *("environment of the parent", "memory of the parent", "own files in /proc", "the secret", "a list of files"),
    *("a new folder", "a new file", "a new link", "a new name", "a file in memory", "a connection", "a socket"),
    *("a trace of the parent", "a handle of the parent", "a signal to the parent", "a program"),
}


@pytest.fixture
def target(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A secret, a listening port and a folder that can be written."""
    secret = tmp_path / "workspace-secret"
    secret.write_text("a secret for the tests only")
    (tmp_path / "open").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {"secret": str(secret), "port": server.getsockname()[1], "folder": str(tmp_path / "open")}


def probed(target: dict[str, Any], *layers: str) -> set[str]:
    """What works in a process with these layers alone; what it needs is imported before."""
    code = (
        "import json, sys; from tests.support.probe import attempts; from anonlib.media.sandbox import confinement\n"
        "for layer in sys.argv[2:]: assert getattr(confinement, layer)(), layer\n"
        "print(json.dumps(attempts(**json.loads(sys.argv[1]))))"
    )
    paths = os.pathsep.join([str(ROOT), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(target), *layers],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout))


def test_nothing_that_a_taken_over_decoder_tries_works(target: dict[str, Any]) -> None:
    decoders = Decoders(poison.PROGRAM)
    with pytest.raises(ImageProblem) as answer:
        decoders.decode(poison.poison(f"probe: {json.dumps(target)}"), LIMITS)
    decoders.close()
    assert json.loads(str(answer.value)) == []
    assert list(Path(target["folder"]).iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may trace and read its parent everywhere")
def test_outside_of_the_sandbox_the_same_attempts_work(target: dict[str, Any]) -> None:
    assert probed(target) == EVERYTHING


REFUSED_BY = {
    "filter_calls": EVERYTHING,
    "forbid_files": EVERYTHING - {"a file in memory", "a socket", "a handle of the parent"},
    "leave_namespaces": {name for name in EVERYTHING if name[:8] in ("environm", "memory o", "a trace ", "a connec")},
}


@pytest.mark.parametrize("layer", REFUSED_BY)
def test_each_layer_alone_refuses_what_is_its_own(target: dict[str, Any], layer: str) -> None:
    assert probed(target, layer) & REFUSED_BY[layer] == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody else has capabilities to lose")
def test_root_without_capabilities_cannot_read_what_is_another_users(target: dict[str, Any]) -> None:
    os.chown(target["secret"], 12345, 12345)
    Path(target["secret"]).chmod(0o600)
    assert "the secret" in probed(target)
    assert not {"the secret", "a trace of the parent"} & probed(target, "make_undumpable", "drop_capabilities")


def test_this_kernel_grants_every_layer_and_all_are_taken() -> None:
    assert sandbox_layers() == confinement.LAYERS


def test_a_process_that_starts_a_decoder_cannot_be_read_by_others_of_its_user() -> None:
    decode_apart(PHOTO, LIMITS)
    pr_get_dumpable = 3
    assert ctypes.CDLL(None).prctl(pr_get_dumpable, 0, 0, 0, 0) == 0


def lacking(layer: str) -> Decoders:
    """Decoders on a kernel that does not grant a layer."""
    code = (
        f"import sys; sys.path[:0] = {[str(ROOT), *sys.path]!r}\n"
        "from anonlib.media.sandbox import confinement, worker\n"
        f"worker.confine = lambda: tuple(one for one in confinement.LAYERS if one != {layer!r})\n"
        "worker.main()"
    )
    return Decoders([sys.executable, "-c", code])


@pytest.mark.parametrize("layer", sorted(confinement.NEEDED))
def test_where_a_needed_layer_is_missing_no_photo_is_decoded(layer: str) -> None:
    with pytest.raises(SandboxUnavailable, match=f"cannot be confined: this kernel does not grant {layer}"):
        lacking(layer).decode(PHOTO, LIMITS)


def test_where_another_layer_is_missing_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    process._warn_of.cache_clear()
    for _ in range(2):
        decoders = lacking("landlock")
        assert decoders.decode(PHOTO, LIMITS).size == (32, 32)
        decoders.close()
    assert [record.getMessage() for record in caplog.records] == [
        "Photos are decoded in processes that this kernel confines without: landlock (see `anonlib doctor`)."
    ]
