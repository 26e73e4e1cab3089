"""Each deliberate mistake of mutations.py makes a test of its rule fail."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCE = HERE.parents[2] / "snapshot" / "stream"
TEXTS = {path.name: path.read_text() for path in SOURCE.glob("*.py")}


def table():
    spec = importlib.util.spec_from_file_location("mutations", HERE / "mutations.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MUTATIONS


MUTATIONS = table()


@pytest.mark.parametrize(("rule", "file", "old", "new"), MUTATIONS)
def test_each_mistake_still_finds_its_place(rule, file, old, new):
    assert TEXTS[file].count(old) == 1
    compile(TEXTS[file].replace(old, new), file, "exec")


@pytest.fixture
def verdict(request, tmp_path):
    """What pytest says of the rule's tests with the mistake in place."""
    rule, file, old, new = request.param
    copy = tmp_path / "stream"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / file).write_text(TEXTS[file].replace(old, new))
    command = [sys.executable, "-m", "pytest", "-p", "no:koguma", "-p", "no:xdist", "-x", "-q", str(HERE)]
    environment = {**os.environ, "KOGUMA_MUTANT": str(tmp_path), "KOGUMA_RULE": rule, "KOGUMA_EXAMPLES": "30"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "verdict",
    [pytest.param(each, id=f"{each[0]}-{number}") for number, each in enumerate(MUTATIONS)],
    indirect=True,
)
def test_a_mistake_is_found_by_the_tests_of_its_rule(verdict):
    assert verdict.returncode == pytest.ExitCode.TESTS_FAILED, verdict.stdout[-2000:] + verdict.stderr[-1000:]
