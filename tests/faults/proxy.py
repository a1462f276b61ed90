"""An HTTP proxy in front of an S3 server that fails on request, or by a seeded schedule, and says what it did.

Storage fails in ways that no flag of a server brings about: busy, slow, a body that ends early, and the worst, a write
that was done and whose answer was lost. The proxy sends every request on unchanged, its Host header too, so signatures
stay valid.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.faults.kinds import ANSWERS, FAULTS, TRANSIENT, fits

__all__ = ["ANSWERS", "FAULTS", "TRANSIENT", "FaultProxy", "Injected"]

_PIECE = 1 << 16
_NOT_SENT_ON = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "expect"}


@dataclass(frozen=True)
class Injected:
    """One fault: Unix time in s, what, and on which request; `key` is bucket/key, a query behind it."""

    at: float
    fault: str
    method: str
    key: str


@dataclass
class _Rule:
    fault: str
    match: str
    left: int


@dataclass(frozen=True)
class _Schedule:
    seed: int
    rate: float
    faults: tuple[str, ...]
    match: str
    most: int
    once: bool


class FaultProxy:
    """Answers at `endpoint` while it is entered; `log` is what it injected, `asked` counts requests by method.

    `claims` counts by bucket/key the conditional writes that the server accepted.

    slow_s: until the first byte of a slow answer; its body takes as long again.
    """

    def __init__(self, target: str, *, host: str = "127.0.0.1", port: int = 0, slow_s: float = 0.2) -> None:
        parts = urlsplit(target)
        self.target, self.slow_s = (str(parts.hostname), int(parts.port or 80)), slow_s
        self.log: list[Injected] = []
        self.asked: Counter[str] = Counter()
        self.claims: Counter[str] = Counter()
        self._rules: list[_Rule] = []
        self._drawn: _Schedule | None = None
        self._times: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._server = _Server((host, port), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.endpoint = f"http://{host}:{self._server.server_address[1]}"

    def inject(self, fault: str, match: str = "*", times: int = 1) -> None:
        """Fail the next `times` requests that match, as in "PUT */commits/*" or "GET *.tar"; -1 for all of them."""
        assert fault in FAULTS, fault
        with self._lock:
            self._rules.append(_Rule(fault, match, times))

    def schedule(
        self,
        seed: int,
        rate: float,
        *,
        faults: Sequence[str] = TRANSIENT,
        match: str = "*",
        most: int = sys.maxsize,
        once: bool = False,
    ) -> None:
        """Fail this share of the matching requests, at most so many, each by a fault drawn for it.

        The draw is of the seed, the key without its bucket and how often it was asked: no thread's pace changes it.
        `once`: what is asked again is let through.
        """
        with self._lock:
            self._drawn = _Schedule(seed, rate, tuple(faults), match, most, once)

    def heal(self) -> None:
        """No more faults from now on."""
        with self._lock:
            self._rules, self._drawn = [], None

    def decide(self, method: str, key: str) -> str | None:
        """The fault of this request, written down, or None."""
        with self._lock:
            self.asked[method] += 1
            fault = self._by_rule(method, key) or self._by_schedule(method, key)
            if fault is not None:
                self.log.append(Injected(time.time(), fault, method, key))
            return fault

    def _by_rule(self, method: str, key: str) -> str | None:
        for rule in self._rules:
            if rule.left and fnmatchcase(f"{method} {key}", rule.match):
                rule.left -= 1
                return rule.fault
        return None

    def _by_schedule(self, method: str, key: str) -> str | None:
        drawn, below = self._drawn, key.partition("/")[2]
        if drawn is None or len(self.log) >= drawn.most or not fnmatchcase(f"{method} {key}", drawn.match):
            return None
        self._times[method, below] += 1
        draw = random.Random(f"{drawn.seed} {method} {below} {self._times[method, below]}")
        if draw.random() >= drawn.rate or (drawn.once and self._times[method, below] > 1):
            return None
        possible = [one for one in drawn.faults if fits(one, method)]
        return draw.choice(possible) if possible else None

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server.end_connections()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    proxy: FaultProxy

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.open: set[socket.socket] = set()
        self.resets: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """A reset is a close without a farewell, which Linux sends where nothing lingers."""
        self.open.discard(request)
        if request in self.resets:
            self.resets.discard(request)
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is what faults make it do."""

    def end_connections(self) -> None:
        for one in list(self.open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for _ in range(500):
            if not self.open:
                return
            time.sleep(0.01)


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
        fault = self.server.proxy.decide(self.command, unquote(self.path.lstrip("/")))
        if fault == "torn-upload":
            self._send_on(half=True)
            self._reset()
        elif fault == "reset-before" or fault in ANSWERS:
            for _ in self._body():
                pass
            self._answer(*ANSWERS[fault]) if fault in ANSWERS else self._reset()
        else:
            try:
                answer = self._send_on()
            except (OSError, HTTPException):
                self._reset()
                return
            if answer.status == 200 and self.headers.get("If-None-Match") == "*":
                self.server.proxy.claims[unquote(self.path.lstrip("/"))] += 1
            if fault == "reset-after":
                answer.read()
                self._reset()
            else:
                self._send_back(answer, fault)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    def _body(self) -> Iterator[bytes]:
        """What the client uploads, in pieces; of a chunked body the chunks."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read(min(left, _PIECE))
            if not piece:
                raise ConnectionError("the client went away")
            left -= len(piece)
            yield piece

    def _send_on(self, *, half: bool = False) -> HTTPResponse:
        """The request as it came; `half` of its body, and then nothing more."""
        length = self.headers.get("Content-Length")
        self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _NOT_SENT_ON:
                self.upstream.putheader(name, value)
        if length is None and "Transfer-Encoding" in self.headers:
            self.upstream.putheader("Transfer-Encoding", "chunked")
        self.upstream.endheaders()
        room = int(length or 0) // 2
        for piece in self._body():
            if half:
                self.upstream.send(piece[:room])
                room -= min(room, len(piece))
            elif length is None:
                self.upstream.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            else:
                self.upstream.send(piece)
        if half:
            self.upstream.close()
            raise ConnectionError("torn")
        if length is None and "Transfer-Encoding" in self.headers:
            self.upstream.send(b"0\r\n\r\n")
        return self.upstream.getresponse()

    def _send_back(self, answer: HTTPResponse, fault: str | None) -> None:
        slow = self.server.proxy.slow_s if fault == "slow" else 0.0
        time.sleep(slow)
        length = answer.getheader("Content-Length")
        bodiless = self.command == "HEAD" or answer.status in (204, 304)
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _NOT_SENT_ON:
                self.send_header(name, value)
        if length is None and not bodiless:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        size = int(length or 0)
        torn = fault == "torn-body" and size > 0
        left, piece_size = (size // 2 if torn else sys.maxsize), (max(size // 16, 1) if slow else _PIECE)
        while left and (piece := answer.read(min(piece_size, left))):
            self.wfile.write(piece if length is not None else b"%x\r\n%b\r\n" % (len(piece), piece))
            left -= len(piece)
            time.sleep(slow / 16)
        if length is None and not bodiless:
            self.wfile.write(b"0\r\n\r\n")
        if torn:
            self.upstream.close()
            self.close_connection = True

    def _answer(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        self.send_response_only(status, code)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        self.server.resets.add(self.connection)
        self.close_connection = True
