"""The page answers the person who was given its address, tells nobody else, and passes on every verdict."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import photos
import pytest
import uvicorn
from runs import by_key

from anonlib.audit.review.guard import Guard
from anonlib.audit.review.page import make_app
from anonlib.audit.review.session import Session
from anonlib.config import JobConfig
from anonlib.pipeline.job import Job, JobError

from .conftest import FACE

KEY = "the key of these tests"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()

    def json(self) -> Any:
        return json.loads(self.content)


class Client:
    """A browser's part of a conversation: its headers, and the cookie once it has one."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.headers = {"Origin": f"http://127.0.0.1:{port}"}

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, self.headers | dict(headers))
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.ask("POST", path, headers, json.dumps(body).encode())


@pytest.fixture
def session(reviewed: JobConfig) -> Session:
    return Session(reviewed)


@pytest.fixture
def stranger(session: Session) -> Iterator[Client]:
    """The page, served at a port of its own."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        app = Guard(make_app(session), port, KEY)
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
    answer = stranger.get(f"/?key={quote(KEY)}")
    assert answer.status == 303 and answer.headers["Location"] == "/"
    stranger.headers["Cookie"] = answer.headers["Set-Cookie"].partition(";")[0]
    assert "HttpOnly" in answer.headers["Set-Cookie"] and "SameSite=strict" in answer.headers["Set-Cookie"]
    return stranger


def state(client: Client) -> dict[str, Any]:
    return dict(client.get("/state").json())


def number(client: Client, key: str) -> int:
    return next(place for place, image in enumerate(state(client)["images"]) if image["name"] == key)


def decide(client: Client, key: str, verdict: str | None, *boxes: tuple[int, ...]) -> Any:
    return client.post("/decide", {"image": number(client, key), "verdict": verdict, "boxes": boxes})


PATHS = ("/", "/state", "/totals", "/page.js", "/image/0/original", "/image/0/released")


@pytest.mark.parametrize("path", PATHS)
def test_nobody_sees_anything_without_the_key(stranger: Client, path: str) -> None:
    for query in ("", "?key=guessed"):
        answer = stranger.get(path + query)
        assert answer.status == 403 and "with its key" in answer.text


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Host", "evil.example"),
        ("Host", "evil.example:PORT"),
        ("Host", "127.0.0.1:1"),
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Origin", "https://127.0.0.1:PORT"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ],
)
def test_a_foreign_page_gets_nothing_even_with_the_cookie(client: Client, header: str, value: str) -> None:
    foreign = {header: value.replace("PORT", str(client.port))}
    for path in PATHS:
        assert client.get(path, **foreign).status == 403
    assert client.post("/apply", **foreign).status == 403


def test_what_changes_something_must_say_where_it_comes_from(client: Client) -> None:
    del client.headers["Origin"]
    assert client.get("/state").status == 200
    assert client.post("/apply").status == 403


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_stored_and_nothing_comes_from_elsewhere(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    if "image" not in path:
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")


def test_a_verdict_is_in_the_log_before_the_page_is_told(client: Client, session: Session) -> None:
    said = decide(client, "astronaut", "mask", FACE).json()
    assert said["image"]["verdict"] == "mask" and said["image"]["boxes"] == [list(FACE)]
    assert said["totals"]["waiting"] == 1
    assert [one.key for one in session.log.latest().values()] == ["astronaut"]
    assert decide(client, "astronaut", None).json()["image"]["verdict"] is None
    assert session.log.latest() == {}


@pytest.mark.parametrize(
    "asked",
    [
        {"image": 0, "verdict": "maybe"},
        {"image": 0, "verdict": "undone"},
        {"image": 99, "verdict": "confirmed"},
        {"image": -1, "verdict": "confirmed"},
        {"image": 0, "verdict": "mask", "boxes": []},
        {"image": 0, "verdict": "mask", "boxes": [["a"]]},
        {"image": 0, "verdict": "confirmed", "shard": "00000"},
        [],
    ],
)
def test_what_is_no_decision_is_refused_in_a_sentence(client: Client, session: Session, asked: Any) -> None:
    answer = client.post("/decide", asked)
    assert answer.status == 409 and answer.json()["problem"]
    assert session.log.latest() == {}


def test_both_pictures_are_upright_jpegs_and_a_broken_file_is_a_sentence(client: Client) -> None:
    one = number(client, "astronaut")
    for kind in ("original", "released"):
        answer = client.get(f"/image/{one}/{kind}")
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert photos.decoded(answer.content).shape == photos.astronaut().shape
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


def test_applying_says_what_it_did(client: Client, reviewed: JobConfig) -> None:
    decide(client, "astronaut", "mask", FACE)
    assert client.post("/apply").json()["applying"] is not None
    result = wait(client)["result"]
    assert result["shards"] == ["00000"] and [one["key"] for one in result["changes"]] == ["astronaut"]
    assert by_key(Path(reviewed.output.uri))["astronaut"]["review"] == "masked"
    assert state(client)["totals"]["waiting"] == 0 and not state(client)["earlier"]


def test_what_stops_it_is_said(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Job) -> None:
        raise JobError("the disk is full")

    monkeypatch.setattr(Job, "render", failing)
    decide(client, "astronaut", "mask", FACE)
    client.post("/apply")
    assert wait(client)["problem"] == "the disk is full"
    assert state(client)["earlier"]
