"""A dataset of the hub is read as of one commit. The hub here is a small server of our own that speaks its protocol."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

import pytest

from anonlib.errors import AccessDenied, Changed, JobError, NotFound, StorageError, Unavailable
from anonlib.job import Job
from anonlib.storage import expand, open_storage, parse_uri
from anonlib.workspace.images import JobImages
from tests.support import photos
from tests.support.runs import by_key, job
from tests.support.s3server import free_port, one_sentence

DATASET = "hf://datasets/owner/faces"


class _Hub(BaseHTTPRequestHandler):
    """Commits of one dataset: path -> bytes; `main` is the last one."""

    protocol_version = "HTTP/1.1"
    commits: ClassVar[dict[str, dict[str, bytes]]] = {}
    refuse: ClassVar[int] = 0

    def log_message(self, *_: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        parts = path.strip("/").split("/")
        if self.refuse:
            self._answer(self.refuse, b"{}")
        elif parts[:4] != ["api", "datasets", "owner", "faces"] and parts[:3] != ["datasets", "owner", "faces"]:
            self._answer(404, b"{}", **{"X-Error-Code": "RepoNotFound"})
        elif parts[0] == "datasets":
            self._file(self._commit(parts[4]), "/".join(parts[5:]))
        elif parts[4:5] == ["tree"]:
            self._tree(self._commit(parts[5]), "/".join(parts[6:]))
        else:
            commit = self._commit(parts[5] if len(parts) > 5 else "main")
            self._answer(200, json.dumps({"id": "owner/faces", "sha": commit, "private": False}).encode())

    do_HEAD = do_GET

    def do_POST(self) -> None:
        commit = self._commit(urlsplit(self.path).path.rpartition("/")[2])
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = (
            json.loads(body)["paths"] if body.startswith("{") else [unquote(body.partition("paths=")[2].split("&")[0])]
        )
        files = self.commits[commit]
        self._answer(200, json.dumps([_about(path, files[path]) for path in asked if path in files]).encode())

    def _commit(self, revision: str) -> str:
        return list(self.commits)[-1] if revision == "main" else revision

    def _tree(self, commit: str, top: str) -> None:
        files = [_about(path, data) for path, data in self.commits[commit].items() if path.startswith(top)]
        folders = {path.rpartition("/")[0] for path in self.commits[commit]} - {""}
        listed = files + [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders]
        self._answer(200, json.dumps(listed).encode())

    def _file(self, commit: str, path: str) -> None:
        data = self.commits[commit].get(path)
        if data is None:
            self._answer(404, b"", **{"X-Error-Code": "EntryNotFound"})
            return
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        stop = min(int(last) + 1, len(data)) if last else len(data)
        tags = {"ETag": f'"{_about(path, data)["oid"]}"', "X-Repo-Commit": commit}
        self._answer(206 if "Range" in self.headers else 200, data[int(first) : stop], **tags)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _about(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


@contextmanager
def _at(endpoint: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        for place in ("constants", "hf_api", "file_download", "hf_file_system"):
            patch.setattr(f"huggingface_hub.{place}.ENDPOINT", endpoint, raising=False)
        patch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield


@pytest.fixture
def hub() -> Iterator[type[_Hub]]:
    _Hub.commits, _Hub.refuse = {"1" * 40: {"data/00000.tar": bytes(range(256)) * 8192, "README.md": b"card"}}, 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    with _at(f"http://127.0.0.1:{server.server_address[1]}"):
        yield _Hub
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_list_of_work_names_one_commit_and_reads_it_when_the_branch_has_moved(hub: type[_Hub]) -> None:
    base, files = expand(f"{DATASET}/data/*.tar")
    assert base == f"{DATASET}@{'1' * 40}/data" and [file.path for file in files] == ["00000.tar"]
    before = hub.commits["1" * 40]["data/00000.tar"]
    hub.commits["2" * 40] = {"data/00000.tar": b"another"}
    place = open_storage(base)
    assert place.read("00000.tar", files[0].etag) == before
    with place.open_read("00000.tar", seekable=True) as stream:
        stream.seek(700_001)
        assert stream.read(300) == before[700_001:700_301]
    with pytest.raises(Changed):
        open_storage(f"{DATASET}@main/data").read("00000.tar", files[0].etag)
    assert expand(f"{DATASET}/data/00000.tar")[0] == f"{DATASET}@{'2' * 40}/data"


def test_a_job_goes_on_with_the_commit_that_it_began_with(hub: type[_Hub], tmp_path: Path) -> None:
    for commit, name in {"1" * 40: "a.jpg", "2" * 40: "b.jpg"}.items():
        photos.tar(tmp_path / f"{name}.tar", [(name, photos.jpeg(photos.nobody()))])
        hub.commits[commit] = {"data/00000.tar": (tmp_path / f"{name}.tar").read_bytes()}
        if name == "a.jpg":
            config = job(f"{DATASET}/data", tmp_path, method={"name": "solid"})
            began = Job(config)
            began.scan()
    later = Job(config)
    assert later.shards == began.shards
    assert later.run().no_face == 1
    assert set(JobImages(later.config, "webdataset").originals(later.shards[0], {"a"})) == {"a"}
    other = config.model_copy(update={"input": config.input.model_copy(update={"uri": f"{DATASET}@main/data"})})
    with pytest.raises(JobError, match="files came, went or changed"):
        Job(other)


def test_people_who_agreed_are_those_of_the_commit_that_a_job_began_with(hub: type[_Hub], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(photos.jpeg(photos.astronaut()))
    hub.commits = {"1" * 40: {"agreed/ada.jpg": photos.jpeg(photos.astronaut())}}
    config = job(tmp_path / "photos", tmp_path, method={"name": "solid"}, spare={"people": f"{DATASET}/agreed"})
    Job(config).scan()
    hub.commits["2" * 40] = {
        "agreed/bea.jpg": photos.jpeg(photos.nobody())
    }  # which shows no face, and would stop a job
    assert Job(config).run().no_face == 0
    (spared,) = by_key(tmp_path / "release")["a.jpg"]["faces"]
    assert spared["fallback"] == "spared"


@pytest.mark.parametrize("revision", ["", "@main", "@refs/convert/parquet", "@refs/pr/1"])
def test_a_revision_may_hold_slashes(revision: str) -> None:
    assert parse_uri(f"{DATASET}{revision}/data/x.parquet") == (f"{DATASET}{revision}", "data/x.parquet")
    assert parse_uri(f"{DATASET}{revision}") == (f"{DATASET}{revision}", "")


def test_the_hub_is_read_and_never_written(hub: type[_Hub]) -> None:
    place = open_storage(DATASET)
    assert place.stat("README.md").size == 4 and [entry.path for entry in place.list()] == [
        "README.md",
        "data/00000.tar",
    ]
    for path in ("nothing", "data"):
        with pytest.raises(NotFound):
            place.stat(path)
    for write in (lambda: place.publish("x", b"1"), lambda: place.claim("x", b"1"), lambda: place.delete("x")):
        with pytest.raises(StorageError, match="can only be read") as caught:
            write()
        assert one_sentence(caught.value)


def test_what_the_hub_refuses_is_a_sentence(hub: type[_Hub]) -> None:
    with pytest.raises(StorageError, match="does not know the bucket"):
        expand("hf://datasets/owner/other/*.tar")
    hub.refuse = 403
    with pytest.raises(AccessDenied, match="may not read"):
        expand(f"{DATASET}/data/*.tar")
    with _at(f"http://127.0.0.1:{free_port()}"), pytest.raises(Unavailable, match="cannot be reached"):
        expand(f"{DATASET}/data/*.tar")
