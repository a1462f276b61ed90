"""Every exception of anonlib, one tree below AnonlibError, and the exit codes of its commands.

The text of each is a sentence for the person at the terminal: what is wrong, where, and what to do. Anything else that
is raised is a bug or a library's answer to damaged data; `contained` keeps it to the one image that was at hand.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Self

from anonlib.codes import Problem, Reason

EXIT_STOPPED = 1
EXIT_QUARANTINED = 3
EXIT_AUDIT_FAILED = 4
EXIT_INTERRUPTED = 130

_PACKAGE = Path(__file__).resolve().parent
_TRACEBACK_CHARACTERS = 8000
"""Characters of a traceback that are kept, its end."""


class AnonlibError(Exception):
    """The root of all exceptions here: a sentence that says what is wrong, where, and what to do."""


class ConfigError(AnonlibError):
    """Says which key of the job is wrong and what to write instead."""


class JobError(AnonlibError):
    """Says why the job cannot go on."""


class DatasetError(AnonlibError):
    """The input is not a dataset that can be read as asked; the text says what to change."""


class DamagedTable(DatasetError):
    """What a Parquet file says of itself breaks its format, or its rows would take far more memory than they have
    bytes; the text says how."""


class ImageProblem(AnonlibError):
    """Why an image cannot be anonymized: `reason` for the manifest, and as text a sentence for the workspace."""

    def __init__(self, reason: Reason, details: str = "") -> None:
        super().__init__(details or reason.meaning)
        self.reason = reason


class NotExact(AnonlibError):
    """A photo cannot leave with its own data; it is encoded anew."""


class OutOfMemory(ImageProblem):
    """There was no memory left to decode it."""

    def __init__(self) -> None:
        super().__init__(Reason.MEMORY, "decoding it needs more memory than there is")


class SandboxUnavailable(AnonlibError):
    """No process that decodes photos can be started: a sentence about this machine, and about no photo."""


class SandboxDied(AnonlibError):
    """The process did not answer as it should, and why; `from_outside` if another process ended it."""

    def __init__(self, why: str, reason: Reason = Reason.CRASHED, *, from_outside: bool = False) -> None:
        super().__init__(why)
        self.reason = reason
        self.from_outside = from_outside


class ModelError(AnonlibError):
    """A model cannot be downloaded or converted; the message says what to do."""


class ModelMissing(ModelError):
    """A model is not on this machine; the message says how to get it, with and without network."""


class ModelUnusable(ModelError):
    """A model's file is damaged, or of another kind or version; the message names it."""


class BackendMissing(ModelError):
    """A backend was asked for that is not installed or has no device; the message says which."""


class DeviceLost(ModelError):
    """A GPU that computes nothing any more. No image is to blame, so no shard goes on with it."""


class StorageError(AnonlibError):
    """A place could not be read or written; `path` is the file below its root, which no sentence may repeat."""

    def __init__(self, sentence: str, *, path: str | None = None) -> None:
        super().__init__(sentence)
        self.path = path

    of_the_file: bool = False
    """Whether this file is the reason, and not the place: other files may be well, and waiting does not help."""


class Unavailable(StorageError):
    """The place is busy, failing or out of reach: the same request may be answered in a moment."""


class NotFound(StorageError):
    """There is nothing at this path."""

    of_the_file = True


class AccessDenied(StorageError):
    """The place answered, and these credentials (or this user) may not do that."""


class LinkRefused(AccessDenied):
    """A link leads out of the root, or nowhere."""

    of_the_file = True


class NotAFile(StorageError):
    """No file can be at this path, such as `a//b`, or a pipe, a socket or a device is there, which is not opened."""

    of_the_file = True


class Changed(StorageError):
    """The file is no longer the one whose etag the inventory recorded."""

    of_the_file = True


class VersionsRemain(StorageError):
    """delete_tree only hid the objects, because the bucket keeps their old versions."""


class WorkspacePurged(StorageError):
    """The workspace was purged, before this run or while it was at work."""


class VerificationError(AnonlibError):
    """A sentence: what a release says of itself that is not so, and where."""


def suggestion(word: str, known: Collection[str]) -> str:
    """The end of a sentence about a word that is none of the known ones: `did you mean solid?`, or all of them."""
    close = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"it is one of {', '.join(known)}"


def require(holds: bool, sentence: str) -> None:
    """Raise VerificationError with the sentence unless it holds."""
    if not holds:
        raise VerificationError(sentence)


class contained:
    """Keeps an unexpected exception to a with block that works on one image, as `what` failed, and logs its traceback.

    `error` is the exception, None if all went well. An AnonlibError passes: it is about a place or this machine, where
    every other image would fail in the same way. So do interrupts.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception) or isinstance(error, AnonlibError):
            return False
        self.error = error
        # Every frame and type, and no message, which may quote a photo or its name.
        logging.getLogger(__name__).error("%s failed\n%s", self.what, "".join(_frames(error)).rstrip())
        return True

    def problem(self, reason: Reason) -> Problem | None:
        """What is wrong with the image, its sentence for the workspace alone; None if all went well."""
        if self.error is None:
            return None
        return Problem(reason, f"{self.what} failed: {kind_and_message(self.error)}")


def _frames(error: BaseException) -> Iterator[str]:
    """The traceback without messages, causes first."""
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None:
        yield from _frames(earlier)
        yield "which led to:\n"
    yield from traceback.format_tb(error.__traceback__)
    yield f"{type(error).__name__}\n"


def kind_and_place(error: BaseException) -> str:
    """An exception as its type and the line it came from, without its message: `KeyError at scan.py:120`."""
    everywhere = list(traceback.extract_tb(error.__traceback__))
    frames = [frame for frame in everywhere if _PACKAGE in Path(frame.filename).parents] or everywhere
    name = type(error).__name__
    return f"{name} at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else name


def kind_and_message(error: BaseException) -> str:
    """An exception as one short line with its message, for the workspace alone."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def full_traceback(error: BaseException) -> str:
    """An exception's traceback with its messages, for the workspace alone."""
    path = getattr(error, "path", None)
    end = "".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS:]
    return end + (f"path: {path}\n" if path else "")
