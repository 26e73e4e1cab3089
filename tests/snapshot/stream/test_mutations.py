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


def table():
    spec = importlib.util.spec_from_file_location("mutations", HERE / "mutations.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MUTATIONS


MUTATIONS = table()


@pytest.mark.parametrize(("rule", "file", "old", "new"), MUTATIONS)
def test_each_mistake_still_finds_its_place(rule, file, old, new):
    text = (SOURCE / file).read_text()
    assert text.count(old) == 1
    compile(text.replace(old, new), file, "exec")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "file", "old", "new"),
    [pytest.param(*each, id=f"{each[0]}-{number}") for number, each in enumerate(MUTATIONS)],
)
def test_a_mistake_is_found_by_the_tests_of_its_rule(rule, file, old, new, tmp_path):
    copy = tmp_path / "stream"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / file).write_text((copy / file).read_text().replace(old, new))
    command = [sys.executable, "-m", "pytest", "-p", "no:koguma", "-p", "no:xdist", "-x", "-q", str(HERE)]
    environment = {**os.environ, "KOGUMA_MUTANT": str(tmp_path), "KOGUMA_RULE": rule, "KOGUMA_EXAMPLES": "30"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout[-2000:] + run.stderr[-1000:]
