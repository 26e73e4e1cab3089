"""The guard of `tests/snapshot/conftest.py` guards."""

import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "touch",
    [
        lambda: Path("/etc/hostname").read_text(),
        tempfile.mkstemp,
        lambda: Path(__file__).with_suffix(".txt").write_text("x"),
        socket.socket,
        lambda: socket.getaddrinfo("localhost", 80),
        lambda: subprocess.Popen(["true"]),
        lambda: time.sleep(0),
    ],
)
def test_touching_the_world_fails_the_test(touch):
    with pytest.raises(AssertionError, match=r"open|socket|subprocess|time\.sleep"):
        touch()


def test_data_files_of_the_tests_may_be_read():
    assert Path(__file__).with_name("conftest.py").read_text()
