"""A stream from S3 that outlives a dropped connection.

A shard is read for minutes while models work, and idle connections are cut. The reader asks again from the
byte that it reached, pinned to the etag of its first answer, so that it can only go on in the same object,
and it reports the end only at the length that the server announced.
"""

import io
import time
from collections.abc import Callable
from typing import Any

from botocore import exceptions as boto

from anonlib.errors import Unavailable

TRIES = 5
FIRST_PAUSE_S = 0.1
BUFFER_BYTES = 1 << 20

_CUT = (
    boto.ReadTimeoutError,
    boto.ResponseStreamingError,
    boto.IncompleteReadError,
    boto.ConnectionClosedError,
    OSError,
    Unavailable,
)

# (first byte, byte after the last or None for the end, etag or None) -> the answer of GetObject.
Get = Callable[[int, int | None, str | None], dict[str, Any]]


class S3Reader(io.RawIOBase):
    """Raw stream over GetObject; wrap it in io.BufferedReader.

    block: None reads on to the end in one answer; a number of bytes asks for ranges of at least that size,
    which suits scattered reads. size: the length in bytes if it is known already (needed with `block`).
    """

    def __init__(
        self, get: Get, name: str, etag: str | None, size: int | None = None, block: int | None = None
    ) -> None:
        super().__init__()
        self._get, self._name, self._etag, self._block = get, name, etag, block
        self._offset = 0
        self._body: Any = None
        self._body_end = 0
        if size is None:
            answer = self._open(0, None)
            size = int(answer["ContentLength"])
            self._body_end = size
        self._size = size

    def _open(self, start: int, stop: int | None) -> dict[str, Any]:
        answer = self._get(start, stop, self._etag)
        self._etag = answer["ETag"].strip('"')
        self._body = answer["Body"]
        return answer

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._block is not None

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if not self.seekable():
            raise io.UnsupportedOperation("this stream was not opened as seekable")
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError("a seek to before the start of the file")
        if start + offset != self._offset:
            self._drop()
            self._offset = start + offset
        return self._offset

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if not len(view) or self._offset >= self._size:
            return 0
        cause: BaseException | None = None
        for attempt in range(TRIES):
            if attempt:
                time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
            try:
                count = self._read_some(view)
            except boto.FlexibleChecksumError as error:
                raise Unavailable(f"{self._name} does not match its checksum; try again.") from error
            except _CUT as error:
                cause = error
                self._drop()
                continue
            if count:
                self._offset += count
                if self._offset >= self._body_end:
                    self._drop()
                return count
            self._drop()
        if isinstance(cause, Unavailable):
            raise cause
        raise Unavailable(
            f"{self._name} stopped after {self._offset} of {self._size} bytes, {TRIES} times; "
            "check the network and run again."
        ) from cause

    def _read_some(self, view: memoryview) -> int:
        if self._body is None:
            wanted = self._size - self._offset if self._block is None else max(self._block, len(view))
            self._body_end = min(self._offset + wanted, self._size)
            self._open(self._offset, self._body_end)
        chunk = self._body.read(min(len(view), self._body_end - self._offset))
        view[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._drop()
        super().close()
