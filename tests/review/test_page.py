"""The page answers the person who was given its address, tells nobody else, and passes on every verdict."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import pytest
import urllib3
import uvicorn
from urllib3 import BaseHTTPResponse as Answer

from anonlib.config import JobConfig
from anonlib.errors import JobError
from anonlib.job import Job
from anonlib.review.page import ASSETS, Guard, make_app
from anonlib.review.session import Session
from tests.review.conftest import FACE
from tests.support import photos
from tests.support.runs import by_key

KEY = "the key of these tests"


class Client:
    """A browser's part of a conversation: its headers, and the token once it has one."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.headers = {"Origin": f"http://127.0.0.1:{port}"}

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        address, sent = f"http://127.0.0.1:{self.port}{path}", self.headers | dict(headers)
        return urllib3.request(method, address, headers=sent, body=body, retries=False, timeout=60)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.ask("POST", path, headers, json.dumps(body).encode())


@pytest.fixture
def session(reviewed: JobConfig) -> Session:
    return Session(reviewed)


@pytest.fixture
def stranger(session: Session) -> Iterator[Client]:
    with page_of(session, KEY) as client:
        yield client


@contextmanager
def page_of(session: Session, key: str) -> Iterator[Client]:
    """The page, served at a port of its own."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        app = Guard(make_app(session), port, key)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
        thread = Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Client(port)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def client(stranger: Client) -> Client:
    answer = exchange(stranger, KEY)
    assert answer.status == 200 and "Set-Cookie" not in answer.headers
    stranger.headers["Authorization"] = f"Bearer {answer.json()['token']}"
    return stranger


def exchange(client: Client, key: str) -> Answer:
    return client.post("/session", Authorization=f"Bearer {key}")


def state(client: Client) -> dict[str, Any]:
    return dict(client.get("/state").json())


def number(client: Client, key: str) -> int:
    return next(place for place, image in enumerate(state(client)["images"]) if image["name"] == key)


def decide(client: Client, key: str, verdict: str | None, *boxes: tuple[int, ...]) -> Any:
    return client.post("/decide", {"image": number(client, key), "verdict": verdict, "boxes": boxes})


CLOSED = ("/state", "/totals", "/image/0/original", "/image/0/released")
PATHS = (*ASSETS, *CLOSED)


def test_every_path_needs_the_token(stranger: Client) -> None:
    """Not with the key itself, either, nor with a token as a cookie or in the address."""
    token = exchange(stranger, KEY).json()["token"]
    headers = [{"Cookie": f"token={token}"}]
    headers += [{"Authorization": word} for word in (f"Bearer {KEY}", f"Basic {token}", f"Bearer {token}x")]
    for path in CLOSED:
        tries = [stranger.get(path + query) for query in ("", f"?key={quote(KEY)}", f"?token={token}")]
        for answer in (*tries, *(stranger.get(path, **header) for header in headers)):
            assert answer.status == 403 and "with its key" in answer.json()["problem"]
        assert stranger.get(path, Authorization=f"Bearer {token}").status == 200
    assert stranger.post("/apply").status == stranger.post("/decide").status == 403


def test_the_key_can_be_exchanged_once_and_the_token_is_of_one_run_of_the_page(
    stranger: Client, session: Session
) -> None:
    for guess in ("", "guessed", KEY[:-1]):
        assert exchange(stranger, guess).status == 403
    answer = exchange(stranger, KEY)
    assert answer.status == 200 and exchange(stranger, KEY).status == 403
    with page_of(session, KEY) as after:
        assert after.get("/state", Authorization=f"Bearer {answer.json()['token']}").status == 403


def test_open_files_hold_nothing_of_the_release(stranger: Client) -> None:
    for answer in map(stranger.get, ASSETS):
        assert answer.status == 200
        assert KEY not in answer.data.decode() and "astronaut" not in answer.data.decode()


FOREIGN = {
    "Host": ["evil.example", "evil.example:PORT", "127.0.0.1:1"],
    "Origin": ["http://evil.example", "null", "https://127.0.0.1:PORT"],
    "Sec-Fetch-Site": ["cross-site", "same-site"],
}


def test_a_foreign_page_gets_nothing_even_with_the_token(client: Client) -> None:
    for foreign in [
        {header: value.replace("PORT", str(client.port))} for header in FOREIGN for value in FOREIGN[header]
    ]:
        for path in PATHS:
            assert client.get(path, **foreign).status == 403
        assert client.post("/apply", **foreign).status == 403
    del client.headers["Origin"]
    assert client.get("/state").status == 200 and client.post("/apply").status == 403


def test_nothing_is_stored_and_nothing_comes_from_elsewhere(client: Client) -> None:
    for path in PATHS:
        answer = client.get(path)
        assert answer.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "image" in path or "http" not in answer.data.decode().replace("http://www.w3.org/2000/svg", "")


def test_a_verdict_is_in_the_log_before_the_page_gets_its_answer(client: Client, session: Session) -> None:
    answer = decide(client, "astronaut", "mask", FACE).json()
    assert answer["image"]["verdict"] == "mask" and answer["image"]["boxes"] == [list(FACE)]
    assert answer["totals"]["waiting"] == 1
    assert [decision.key for decision in session.log.latest().values()] == ["astronaut"]
    assert decide(client, "astronaut", None).json()["image"]["verdict"] is None
    assert session.log.latest() == {}


def test_a_request_that_is_no_decision_is_refused_in_a_sentence(client: Client, session: Session) -> None:
    for wish in (
        {"image": 0, "verdict": "maybe"},
        {"image": 0, "verdict": "undone"},
        {"image": 99, "verdict": "confirmed"},
        {"image": -1, "verdict": "confirmed"},
        {"image": 0, "verdict": "mask", "boxes": []},
        {"image": 0, "verdict": "mask", "boxes": [["a"]]},
        {"image": 0, "verdict": "confirmed", "shard": "00000"},
        [],
    ):
        answer = client.post("/decide", wish)
        assert answer.status == 409 and answer.json()["problem"]
    assert session.log.latest() == {}


def test_both_pictures_are_upright_jpegs_and_a_broken_file_is_a_sentence(client: Client) -> None:
    image = number(client, "astronaut")
    for kind in ("original", "released"):
        answer = client.get(f"/image/{image}/{kind}")
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert photos.decoded(answer.data).shape == photos.astronaut().shape
    for path in (f"/image/{number(client, 'broken')}/original", f"/image/{number(client, 'failing')}/released"):
        answer = client.get(path)
        assert answer.status == 404 and answer.json()["problem"]
    assert client.get("/image/99/original").status == client.get("/image/0/forget").status == 404


def wait(client: Client) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        applying: dict[str, Any] = client.get("/totals").json()["applying"]
        if applying["result"] or applying["problem"]:
            return applying
        time.sleep(0.05)
    raise AssertionError("it never ends")


def test_an_apply_returns_the_changes_or_the_problem(
    client: Client, reviewed: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Job) -> None:
        raise JobError("the disk is full")

    decide(client, "astronaut", "mask", FACE)
    with monkeypatch.context() as patched:
        patched.setattr(Job, "render", failing)
        client.post("/apply")
        assert wait(client)["problem"] == "the disk is full"
    assert state(client)["earlier"]
    assert client.post("/apply").json()["applying"] is not None
    result = wait(client)["result"]
    assert result["shards"] == ["00000"] and [change["key"] for change in result["changes"]] == ["astronaut"]
    assert by_key(Path(reviewed.output.uri))["astronaut"]["review"] == "masked"
    assert state(client)["totals"]["waiting"] == 0 and not state(client)["earlier"]
