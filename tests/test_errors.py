"""One tree of exceptions, and what a log and a workspace get to know of one."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

import anonlib.errors
from anonlib.codes import Reason
from anonlib.errors import (
    AnonlibError,
    DeviceLost,
    ImageProblem,
    StorageError,
    contained,
    full_traceback,
    kind_and_message,
)
from anonlib.terminal import guarded

PACKAGE = Path(anonlib.errors.__file__).parent
NAME = "Ada Quill"


def raised(error: Exception) -> Exception:
    """The error with a traceback."""
    try:
        raise error
    except type(error) as caught:
        return caught


def test_every_exception_of_the_package_is_in_the_tree() -> None:
    elsewhere = {
        f"{path.relative_to(PACKAGE)}: {node.name}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "errors.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any("Error" in ast.unparse(base) for base in node.bases)
    }
    assert not elsewhere


@pytest.mark.parametrize("error", [AnonlibError("no"), StorageError("no"), ImageProblem(Reason.EMPTY), OSError("no")])
def test_a_command_ends_in_a_sentence_and_exit_code_1(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, guarded():
        raise error
    assert end.value.code == 1 and capsys.readouterr().err == f"anonlib: {error}\n"


def test_contained_logs_every_frame_and_no_message_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), contained("scanning photos") as failure:
        try:
            raise KeyError(NAME)
        except KeyError as cause:
            raise ValueError(NAME) from cause
    assert isinstance(failure.error, ValueError)
    assert caplog.text.count("test_errors.py") >= 2 and "KeyError" in caplog.text and "ValueError" in caplog.text
    assert "scanning photos failed" in caplog.text and "raise ValueError(NAME)" in caplog.text
    assert NAME not in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), StorageError("gone"), DeviceLost("gone")])
def test_interrupts_and_failures_of_a_place_or_a_machine_are_not_contained(error: BaseException) -> None:
    with pytest.raises(type(error)), contained("scanning photos"):
        raise error


def test_the_workspace_gets_the_message_in_one_line_and_the_traceback_with_the_path() -> None:
    error = raised(ValueError("first line\n  second\tline " + "x" * 500))
    message = kind_and_message(error)
    assert message.startswith("ValueError: first line second line x") and message.isprintable() and len(message) < 230
    assert "second" in full_traceback(error) and "test_errors.py" in full_traceback(error)
    assert full_traceback(raised(StorageError("gone", path="Ada/1.jpg"))).endswith("path: Ada/1.jpg\n")
