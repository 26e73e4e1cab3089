"""The scripts of the README: they set up what is missing, once, and say what to do where they cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECORDING_PYTHON = """\
#!/bin/sh
echo "$@" >>"{log}"
[ "$1 $2 $3" != "-m pip install" ] || exit {pip_status}
"""


class Checkout:
    """A checkout whose environment has a Python that only records what it is asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "asked"
        shutil.copytree(ROOT / "scripts", root / "scripts")
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, root / name)

    def give_python(self, directory: str, pip_status: int = 0) -> None:
        python = self.root / directory / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(RECORDING_PYTHON.format(log=self.log, pip_status=pip_status))
        python.chmod(0o755)

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        return subprocess.run(
            ["sh", str(self.root / "scripts" / script), *arguments],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
        )

    def asked(self, what: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if what in line]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize(
    ("script", "directory", "extras", "command"),
    [("test", ".venv", "dev,envoy", "-m pytest"), ("demo", ".demo/venv", "envoy", "-m xds_server.cli.kuma_cp demo")],
)
def test_a_second_run_installs_nothing_until_a_dependency_changes(checkout, script, directory, extras, command) -> None:
    checkout.give_python(directory)
    first = checkout.run(script, "--flag")
    assert first.returncode == 0, first.stderr
    (install,) = checkout.asked("pip install")
    assert install.endswith(f"--constraint {checkout.root}/constraints.txt --editable {checkout.root}[{extras}]")
    assert checkout.asked(command) == [f"{command} --flag"]

    checkout.run(script)
    assert checkout.asked("pip install") == []

    with (checkout.root / "constraints.txt").open("a") as file:
        file.write("another==1\n")
    checkout.run(script)
    assert len(checkout.asked("pip install")) == 1


def test_a_failed_installation_is_tried_again_next_time(checkout) -> None:
    checkout.give_python(".venv", pip_status=1)
    for _ in range(2):
        done = checkout.run("test")
        assert done.returncode == 1
        assert "the installation failed" in done.stderr
        assert len(checkout.asked("pip install")) == 1
        assert checkout.asked("-m pytest") == []


def test_the_demo_uses_the_environment_of_the_tests_where_there_is_one(checkout) -> None:
    checkout.give_python(".venv")
    checkout.run("test")
    checkout.run("demo")
    assert len(checkout.asked("kuma_cp demo")) == 1
    assert not (checkout.root / ".demo").exists()


def test_without_python_it_says_which_one_is_needed(checkout, tmp_path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "dirname", "basename", "cat", "cksum"):
        (tools / name).symlink_to(shutil.which(name))
    done = checkout.run("test", PATH=str(tools), PYTHON="")
    assert done.returncode == 1
    assert "no Python 3.11 or newer found; install one, or name it: PYTHON=" in done.stderr
