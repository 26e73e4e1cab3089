"""The core is pure: while a test body runs, opening files, sockets, processes and sleeping fail the test.

Fixtures run before and after, so they may read what they like. A body may read the data files of the tests, and the
interpreter its modules.
"""

import contextlib
import contextvars
import re
import sys
from pathlib import Path
from unittest import mock

import pytest

TESTS = Path(__file__).resolve().parents[1]

_FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn")
_MODULE = re.compile(r"\.(py|pyc|so)(\.\d+)?$")
_WRITING = re.compile(r"[wax+]")
_armed = contextvars.ContextVar("armed", default=False)


class ImpureError(AssertionError):
    """The core, or its test, touched the world."""


def _audit(event, arguments):
    if not _armed.get():
        return
    if event.startswith(_FORBIDDEN):
        raise ImpureError(f"{event}{arguments!r}")
    if event == "open" and not _may_open(*arguments):
        raise ImpureError(f"open{arguments!r}")


def _may_open(path, mode, _flags):
    if isinstance(path, int):  # a descriptor that is open already
        return True
    text = path.decode(errors="replace") if isinstance(path, bytes) else str(path)
    if _MODULE.search(text) or "/.hypothesis/" in text or text.startswith(".hypothesis"):
        return True
    reads_only = mode is not None and not _WRITING.search(mode)
    return reads_only and Path(text).resolve().is_relative_to(TESTS)


sys.addaudithook(_audit)


@contextlib.contextmanager
def armed():
    """Within: touching the world raises."""
    token = _armed.set(True)
    try:
        # before Python 3.13 sleeping raises no audit event
        with mock.patch("time.sleep", _no_sleep):
            yield
    finally:
        _armed.reset(token)


def _no_sleep(seconds):
    raise ImpureError(f"time.sleep({seconds})")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    with armed():
        return (yield)
