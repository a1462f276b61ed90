"""Decoder processes, seen from outside: each gets a photo at a time, is watched, and is ended where it takes too long.

A process that parsed an untrusted file is not trusted: its answer is a few numbers and words, each checked, and pixels
that are copied out of a sealed memfd (memfd_create(2)), which cannot shrink under the reader. It gets an empty
environment and confines itself (confinement.py). Only a fresh process's death is held against a photo, since another
may die of an earlier file, and a SIGKILL comes from outside: what becomes of a photo depends on no other.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import logging
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Lock, Semaphore
from typing import Annotated, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter

from anonlib.codes import Note, Reason, Stripped
from anonlib.config import LimitsConfig
from anonlib.errors import ImageProblem, SandboxDied, SandboxUnavailable
from anonlib.media.codec import ImageFormat, Picture
from anonlib.media.colour import ColourSpace
from anonlib.media.exact import Stored
from anonlib.media.sandbox.confinement import LAYERS, NEEDED, make_undumpable
from anonlib.media.sandbox.worker import (
    ANSWER,
    COMPARE,
    DECODE,
    HEADER,
    OUT_OF_MEMORY,
    READY,
    READY_WORD,
    REPLACE,
    REQUEST,
    shared_bytes,
)

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from anonlib.media.sandbox import {0}; {0}.main()"
_START_SECONDS = 120.0
MOST_JSON = 1 << 14
_KEPT_BYTES = 32 << 20
_HEADER_BYTES = 1 << 16
_CORES = len(os.sched_getaffinity(0))
_MOST_IDLE = max(4, _CORES)
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

_Side = Annotated[int, Field(ge=1)]
_Table = Annotated[tuple[Annotated[int, Field(ge=0, le=65535)], ...], Field(min_length=64, max_length=64)]


class _Described(NamedTuple):
    """A Picture without its pixels."""

    rows: _Side
    columns: _Side
    alpha: bool
    format: ImageFormat
    space: ColourSpace | None
    stripped: Annotated[tuple[Stripped, ...], Field(max_length=8)]
    notes: Annotated[tuple[Note, ...], Field(max_length=8)]
    height: _Side
    width: _Side
    orientation: Annotated[int, Field(ge=1, le=8)]
    is_exact: bool
    tables: Annotated[tuple[_Table, ...], Field(max_length=4)]
    sampling: Annotated[int, Field(ge=-1, le=2)]
    lossless: bool


_ANSWERS: TypeAdapter[Any] = TypeAdapter(
    _Described | tuple[Reason, Annotated[str, Field(max_length=300)]] | Annotated[int, Field(ge=0, lt=1 << 40)],
    config=ConfigDict(strict=True),
)
"""A picture, an ImageProblem's reason and details, or what the pixels will take."""


class DecoderProcess:
    """A started process for photos of up to `max_mpx` megapixels, each in up to `seconds`; for one caller at a time.

    `layers`: those of the sandbox that its kernel granted; raises SandboxUnavailable where a NEEDED one is missing.
    """

    layers: tuple[str, ...] = ()
    _worker = "worker"
    """The module of this package that the process runs, unless `program` is given."""
    _files: tuple[int, ...] = ()
    """Open files that it gets beside the shared memory."""

    def __init__(self, max_mpx: float, seconds: float, program: Sequence[str] | None = None) -> None:
        self.max_mpx, self.seconds = max_mpx, seconds
        self.used = self._busy = False
        self._unread = b""
        if program is None:
            # Where it finds this very anonlib, and the libraries that this process uses.
            paths = [*(str(Path(entry).resolve()) for entry in sys.path), str(Path(__file__).resolve().parents[3])]
            program = (sys.executable, "-I", "-S", "-c", _START.format(self._worker), json.dumps(paths))
        try:
            self._start(program)
        except (OSError, OverflowError) as error:
            raise SandboxUnavailable(f"the process that decodes photos cannot be started: {error}") from None
        self._wait_until_ready()

    def _shared_bytes(self) -> int:
        return shared_bytes(self.max_mpx)

    def _start(self, program: Sequence[str]) -> None:
        size = self._shared_bytes()
        libraries = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        make_undumpable()
        shared = os.memfd_create("anonlib-photo", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._channel, theirs = socket.socketpair()
        try:
            os.ftruncate(shared, size)
            fcntl.fcntl(shared, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._shared = mmap.mmap(shared, size)
            self._process = subprocess.Popen(
                [*program, *map(str, (*self._files, shared)), repr(self.max_mpx), repr(self.seconds)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(*self._files, shared),
                cwd="/",
                env=libraries | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                process_group=0,  # Ctrl-C at the terminal is not meant for it
            )
        except BaseException:
            self._channel.close()
            raise
        finally:
            theirs.close()
            os.close(shared)

    def _wait_until_ready(self) -> None:
        complaints = self._process.stderr
        assert complaints is not None
        word, granted = b"", 0
        with suppress(OSError):
            word, granted = READY.unpack(self._received(READY.size, time.monotonic() + _START_SECONDS))
        if word != READY_WORD:
            self._process.kill()
            lines = complaints.read(1 << 16).decode(errors="replace").split("\n")
            self.close()
            last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
            raise SandboxUnavailable(f"the process that decodes photos cannot be started: {last[:200]}")
        complaints.close()
        self.layers = tuple(layer for number, layer in enumerate(LAYERS) if granted >> number & 1)
        missing = tuple(layer for layer in LAYERS if layer not in self.layers)
        if NEEDED.intersection(missing):
            self.close()
            raise SandboxUnavailable(
                f"the process that decodes photos cannot be confined: this kernel does not grant {', '.join(missing)}; "
                "run on Linux on x86_64 or aarch64 where seccomp filters are allowed"
            )
        if missing:
            _warn_of(missing)

    @property
    def ready(self) -> bool:
        """Whether it lives and waits for a photo."""
        return not self._busy and self._process.poll() is None

    def ask(self, wanted: int, data: bytes, extra: bytes = b"", least_side: int | None = None) -> Picture | int | bytes:
        """The Picture of a file, or the other answer that is `wanted` (see worker.py), which may need `extra` bytes.

        Raises ImageProblem, and SandboxDied after which it must not be used again.
        """
        self._busy, deadline = True, time.monotonic() + self.seconds
        head = REQUEST.pack(wanted, len(data), len(extra), -1 if least_side is None else least_side)
        with self._watched():
            self._send(b"".join([head, data, extra]))
            result = self._checked(self._answer(_ANSWERS, MOST_JSON, deadline), wanted)
        self._busy, self.used = False, True
        if isinstance(result, ImageProblem):
            raise result
        return result

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """What goes wrong with the process, as an ImageProblem where it takes too long and else as SandboxDied."""
        try:
            yield
        except TimeoutError:
            raise ImageProblem(Reason.TIME, self._too_long) from None
        except OSError:
            raise self._death() from None
        except ValueError:  # pydantic's ValidationError is one
            raise SandboxDied("decoding it made the decoder answer with something that is no photo") from None

    def _send(self, request: bytes) -> None:
        self._channel.settimeout(self.seconds)
        self._channel.sendall(request)

    def _answer(self, answers: TypeAdapter[Any], most: int, deadline: float) -> Any:
        """The next answer, of at most `most` bytes and one of `answers`; raises ValueError and OSError."""
        (size,) = ANSWER.unpack(self._received(ANSWER.size, deadline))
        if size > most:
            raise ValueError(f"{size} bytes")
        answer = answers.validate_json(self._received(size, deadline))
        if self._unread:
            raise ValueError("more than an answer")
        return answer

    def _checked(self, answer: Any, wanted: int) -> Picture | ImageProblem | int | bytes:
        """An answer against what was asked for, pixels copied; raises ValueError."""
        if isinstance(answer, int) and wanted != DECODE:
            return self._copied(0, (answer,)).tobytes() if wanted == REPLACE else answer
        if not isinstance(answer, _Described | int) and answer[1].isprintable():
            return ImageProblem(*answer)
        if not isinstance(answer, _Described) or wanted != DECODE:
            raise ValueError("an answer to another question")
        rows, columns, size = answer.rows, answer.columns, (answer.height, answer.width)
        if rows > size[0] or columns > size[1] or size[0] * size[1] > self.max_mpx * 1e6:
            raise ValueError("a size that cannot be")
        rgb = self._copied(0, (rows, columns, 3))
        alpha = self._copied(rgb.size, (rows, columns)) if answer.alpha else None
        if rgb.size > _KEPT_BYTES:
            self._shared.madvise(mmap.MADV_REMOVE)
        kept: tuple[Any, ...] = answer[9:]
        return Picture(rgb, alpha, *answer[3:7], size, *kept)

    def _copied(self, start: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        count = int(np.prod(shape))
        return np.frombuffer(self._shared, np.uint8, count, start).reshape(shape).copy()

    def close(self) -> None:
        """End it, whatever it does."""
        self._channel.close()
        self._process.kill()
        self._process.wait()
        if self._process.stderr:
            self._process.stderr.close()
        self._shared.close()

    @property
    def _too_long(self) -> str:
        return f"decoding it took longer than {self.seconds:g} s (limits.image_seconds)"

    def _received(self, size: int, deadline: float) -> bytes:
        """Exactly `size` bytes; raises TimeoutError, and another OSError where it is dead."""
        while len(self._unread) < size:
            self._channel.settimeout(max(deadline - time.monotonic(), 1e-3))
            part = self._channel.recv(1 << 16)
            if not part:
                raise ConnectionResetError
            self._unread += part
        taken, self._unread = self._unread[:size], self._unread[size:]
        return taken

    def _death(self) -> SandboxDied:
        """Why it ended; it has closed its end of the socket, so it is dead or about to be."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        code = self._process.poll()
        if code is None:
            return SandboxDied("decoding it made the decoder hang up")
        if code == OUT_OF_MEMORY:
            return SandboxDied("decoding it needs more memory than a photo of limits.image_mpx may take", Reason.MEMORY)
        if code == -signal.SIGALRM:
            return SandboxDied(self._too_long, Reason.TIME)
        if code < 0:
            name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
            return SandboxDied(f"decoding it crashed the decoder (signal {name})", from_outside=-code in _FROM_OUTSIDE)
        return SandboxDied(f"decoding it ended the decoder (exit code {code})")


@cache
def _warn_of(missing: tuple[str, ...]) -> None:
    """Once a process."""
    logging.getLogger(__name__).warning(
        "Photos are decoded in processes that this kernel confines without: %s (see `anonlib doctor`).",
        ", ".join(missing),
    )


class Decoders:
    """A pool of as many processes as threads decode at once; `program` is another one than worker.py, for a test."""

    def __init__(self, program: Sequence[str] | None = None) -> None:
        self.program = program
        self._idle: list[DecoderProcess] = []
        # More would only take turns on the cores, and each costs half a second to start.
        self._free = Semaphore(max(2, _CORES))
        self._lock = Lock()

    def decode(self, data: bytes, limits: LimitsConfig, *, least_side: int | None = None) -> Picture:
        """`codec.decode` in another process, in `limits.image_seconds` and no more memory than `image_mpx` calls for.

        Raises ImageProblem, also where decoding crashed, and SandboxUnavailable where no process can be started.
        """
        return cast("Picture", self._ask(limits, DECODE, data, least_side=least_side))

    def header_bytes(self, data: bytes, limits: LimitsConfig, *, least_side: int | None = None) -> int:
        """`codec.decoded_bytes` in another process, without memory for pixels; raises as decode."""
        # Nearly every header is at the beginning, and sending the rest would cost more than reading it.
        count = self._ask(limits, HEADER, data[:_HEADER_BYTES], least_side=least_side)
        if not count and len(data) > _HEADER_BYTES:
            count = self._ask(limits, HEADER, data, least_side=least_side)
        return cast("int", count)

    def replace(
        self, data: bytes, changed: NDArray[np.bool_], pixels: NDArray[np.uint8], stored: Stored, limits: LimitsConfig
    ) -> bytes:
        """`exact.replace` in another process; raises ImageProblem where that raises NotExact, and as decode."""
        return cast("bytes", self._ask(limits, REPLACE, data, (changed, pixels, stored)))

    def changed_blocks(self, before: bytes, after: bytes, allowed: NDArray[np.bool_], limits: LimitsConfig) -> int:
        """`exact.changed_blocks` in another process; raises as replace."""
        return cast("int", self._ask(limits, COMPARE, before, (after, allowed)))

    def layers(self) -> tuple[str, ...]:
        """The layers of confinement.LAYERS that this kernel grants; raises SandboxUnavailable where too few."""
        process = DecoderProcess(1.0, 60.0, self.program)
        process.close()
        return process.layers

    def close(self) -> None:
        """End the idle processes; a later photo starts new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()

    def forget(self) -> None:
        """In a forked copy of this process: the processes belong to the one that started them."""
        self._idle, self._lock, self._free = [], Lock(), Semaphore(max(2, _CORES))

    def _ask(
        self, limits: LimitsConfig, wanted: int, data: bytes, extra: object = None, *, least_side: int | None = None
    ) -> Picture | int | bytes:
        more = b"" if extra is None else pickle.dumps(extra)
        bounds = limits.image_mpx, limits.image_seconds
        with self._free:
            process = self._idle_process(*bounds) or DecoderProcess(*bounds, self.program)
            second = False
            while True:
                fresh = not process.used
                try:
                    return process.ask(wanted, data, more, least_side)
                except SandboxDied as death:
                    if second or (fresh and not death.from_outside):
                        raise ImageProblem(death.reason, str(death)) from None
                finally:
                    self._take_back(process)
                process, second = DecoderProcess(*bounds, self.program), True

    def _idle_process(self, max_mpx: float, seconds: float) -> DecoderProcess | None:
        with self._lock:
            fitting = [process for process in self._idle if (process.max_mpx, process.seconds) == (max_mpx, seconds)]
            if not fitting:
                return None
            self._idle.remove(fitting[0])
        if fitting[0].ready:
            return fitting[0]
        fitting[0].close()
        return None

    def _take_back(self, process: DecoderProcess) -> None:
        surplus: DecoderProcess | None = process
        if process.ready:
            with self._lock:
                self._idle.append(process)
                surplus = self._idle.pop(0) if len(self._idle) > _MOST_IDLE else None
        if surplus:
            surplus.close()


_OURS = Decoders()
atexit.register(_OURS.close)
os.register_at_fork(after_in_child=_OURS.forget)
decode_apart, header_bytes_apart, sandbox_layers = _OURS.decode, _OURS.header_bytes, _OURS.layers
replace_apart, changed_blocks_apart = _OURS.replace, _OURS.changed_blocks
