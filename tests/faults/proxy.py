"""An HTTP proxy in front of an S3 server that fails on request, or by a seeded schedule, and says what it did.

Storage fails in ways that no flag of a server brings about: busy, slow, a body that ends early, and the worst, a write
that was done and whose answer was lost. What is sent on keeps its headers, so signatures stay valid.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

ANSWERS = {
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "expired": (400, "ExpiredToken"),
    "skewed": (403, "RequestTimeTooSkewed"),
    "denied": (403, "AccessDenied"),
    "full": (507, "InsufficientStorage"),
}
"""Faults that are an answer instead of the request being carried out: status and S3's code."""
BROKEN = ("slow", "reset-before", "reset-after", "torn-body", "torn-upload")
"""Faults of the connection. Only after `slow` and `reset-after` was the request carried out."""
TRANSIENT = ("500", "503", *BROKEN)
"""Faults that pass; the others last until a person does something."""
_NOT_SENT_ON = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "expect", "content-length"}


def fits(fault: str, method: str) -> bool:
    """Whether a fault can befall such a request: only a GET has a body to tear, only a PUT or POST uploads one."""
    wanted = {"torn-body": ("GET",), "torn-upload": ("PUT", "POST"), "full": ("PUT", "POST")}
    return method in wanted.get(fault, (method,))


class Injected(NamedTuple):
    """One fault, and on which request; `key` is bucket/key, a query behind it."""

    fault: str
    method: str
    key: str


@dataclass
class _Rule:
    fault: str
    match: str
    left: int
    once: bool


class FaultProxy:
    """Answers at `endpoint` while it is entered; `log` is what it injected.

    `slow_s`: until the first byte of a slow answer; its body takes as long again. `refuse`: the answer to a request
    that the server behind cannot be made to refuse, by method, key and headers, or None.
    """

    def __init__(self, target: str, *, slow_s: float = 0.2) -> None:
        parts = urlsplit(target)
        self.target, self.slow_s = (str(parts.hostname), int(parts.port or 80)), slow_s
        self.refuse: Callable[[str, str, Mapping[str, str]], tuple[int, str] | None] = lambda *request: None
        self.log: list[Injected] = []
        self._rules: list[_Rule] = []
        self._schedule: tuple[int, float, int] | None = None
        self._times: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def inject(self, fault: str, match: str = "*", times: int = 1, once: bool = False) -> None:
        """Fail the next `times` requests that match, as in "PUT */commits/*" or "GET *.tar"; -1 for all of them.

        `once`: a request that comes again is let through.
        """
        assert fault in ANSWERS or fault in BROKEN, fault
        with self._lock:
            self._rules.append(_Rule(fault, match, times, once))

    def schedule(self, seed: int, rate: float, most: int) -> None:
        """Fail this share of the requests, `most` at most, each by a TRANSIENT fault drawn for it.

        The draw is of the seed, the key without its bucket and how often it was asked: no thread's pace changes it.
        """
        with self._lock:
            self._schedule = seed, rate, most

    def heal(self) -> None:
        """No more faults from now on."""
        with self._lock:
            self._rules, self._schedule = [], None

    def decide(self, method: str, key: str) -> str | None:
        """The fault of this request, written down, or None."""
        with self._lock:
            below = key.partition("/")[2]
            self._times[method, below] += 1
            times = self._times[method, below]
            fault = self._by_rule(method, key, times) or self._by_schedule(method, below, times)
            if fault is not None:
                self.log.append(Injected(fault, method, key))
            return fault

    def _by_rule(self, method: str, key: str, times: int) -> str | None:
        for rule in self._rules:
            if rule.left and fnmatchcase(f"{method} {key}", rule.match) and not (rule.once and times > 1):
                rule.left -= 1
                return rule.fault
        return None

    def _by_schedule(self, method: str, below: str, times: int) -> str | None:
        if self._schedule is None:
            return None
        seed, rate, most = self._schedule
        draw = random.Random(f"{seed} {method} {below} {times}")
        if len(self.log) >= most or draw.random() >= rate:
            return None
        return draw.choice([fault for fault in TRANSIENT if fits(fault, method)])

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    proxy: FaultProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is what faults make it do."""


class _Handler(BaseHTTPRequestHandler):
    """One client's connection, and one of our own to the server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.upstream = HTTPConnection(*self.server.proxy.target, timeout=60)

    def finish(self) -> None:
        self.upstream.close()
        with suppress(OSError):
            super().finish()

    def log_message(self, *_: object) -> None:
        """The proxy's log is its own."""

    def _serve(self) -> None:
        proxy, key = self.server.proxy, unquote(self.path.lstrip("/"))
        fault, body = proxy.decide(self.command, key), self._body()
        if refusal := proxy.refuse(self.command, key, dict(self.headers.items())):
            self._refuse(*refusal)
            return
        if fault in ANSWERS:
            self._refuse(*ANSWERS[fault])
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_SENT_ON}
        if fault == "torn-upload":
            length = {"Content-Length": str(len(body))}
            self.upstream.request(self.command, self.path, body[: len(body) // 2], headers | length)
        if fault in ("torn-upload", "reset-before"):
            self._reset()
            return
        try:
            self.upstream.request(self.command, self.path, body, headers)
            answer = self.upstream.getresponse()
            content = answer.read()
        except (OSError, HTTPException):
            self._reset()
            return
        if fault == "reset-after":
            self._reset()
        else:
            self._send_back(answer, content, fault)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    def _body(self) -> bytes:
        """What the client uploads, in one piece."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _send_back(self, answer: HTTPResponse, content: bytes, fault: str | None) -> None:
        slow = self.server.proxy.slow_s if fault == "slow" else 0.0
        time.sleep(slow)
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _NOT_SENT_ON:
                self.send_header(name, value)
        bodiless = self.command == "HEAD" or answer.status in (204, 304)
        length = answer.getheader("Content-Length") if bodiless else str(len(content))
        if length is not None:
            self.send_header("Content-Length", length)
        self.end_headers()
        half = len(content) // 2
        self.wfile.write(content[:half])
        time.sleep(slow)
        if fault == "torn-body":
            self.close_connection = True
        else:
            self.wfile.write(content[half:])

    def _refuse(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        self.send_response_only(status, code)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        """Close without a farewell, which Linux does where nothing lingers."""
        self.upstream.close()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
