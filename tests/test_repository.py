"""What holds for the repository as a whole: sizes, what is committed, how it is packed."""

from __future__ import annotations

import ast
import fnmatch
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST_FILE, LONGEST_FUNCTION = 500, 70
GENERATED = "xds_server/pb/"
TOP = {
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "constraints.txt",
    "Dockerfile",
    "proto",
    "snapshot",
    "xds_server",
    "tests",
    "perf",
    "docs",
    "scripts",
}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True, cwd=ROOT).stdout


def _tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    return [path for path in _git("ls-files").splitlines() if (ROOT / path).is_file()]


def _sources() -> list[str]:
    folders = ("snapshot", "xds_server", "tests", "perf")
    paths = [path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in paths if not path.startswith(GENERATED))


def test_no_file_is_longer_than_five_hundred_lines() -> None:
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in _sources()}
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}


def test_no_function_is_longer_than_seventy_lines() -> None:
    long = [
        f"{path}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in _sources()
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    ]
    assert long == []


@pytest.mark.parametrize("word", ["utils", "util", "helpers", "helper", "common", "manager", "misc"])
def test_no_module_is_a_drawer_for_everything(word: str) -> None:
    assert [path for path in _sources() if word in Path(path).with_suffix("").parts] == []


def test_nothing_else_stands_at_the_top() -> None:
    assert {path.split("/")[0] for path in _tracked() if not path.startswith(".")} <= TOP


def test_the_file_of_every_package_says_what_lives_in_it() -> None:
    bare = [path for path in _sources() if not path.startswith(("tests/", "perf/"))]
    assert [path for path in bare if not ast.get_docstring(ast.parse((ROOT / path).read_text()))] == []


def test_no_path_of_one_machine_is_committed() -> None:
    """Neither where the checkout lies nor anybody's home directory."""
    home = re.escape(str(Path.home()))
    pattern = re.compile(rf"{re.escape(str(ROOT))}(?![\w-])|{home}/(?=\w)" if len(home) > 1 else re.escape(str(ROOT)))
    assert [path for path in _tracked() if pattern.search((ROOT / path).read_text(errors="replace"))] == []


def test_the_scripts_can_be_run() -> None:
    scripts = [path for path in (ROOT / "scripts").iterdir() if path.is_file() and path.suffix == ""]
    assert [path.name for path in scripts if not os.access(path, os.X_OK)] == ["environment"]
    for path in scripts:
        if path.read_text().startswith("#!/bin/sh"):
            subprocess.run(["sh", "-n", str(path)], check=True)


def test_the_generated_code_is_that_of_the_contracts() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate-protos", "--check"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_dependency_is_pinned_to_a_released_version() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][\w.!+]*", line)] == []
    pinned = {_normal(line.split("==")[0]) for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    assert {_normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in declared} - pinned == set()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# The image. No engine runs here; the file is read as one would read it, and its installation executed.


def _instructions() -> Iterator[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            yield word, rest.strip()


def _stages() -> list[list[tuple[str, str]]]:
    stages: list[list[tuple[str, str]]] = []
    for instruction in _instructions():
        if instruction[0] == "FROM":
            stages.append([])
        stages[-1].append(instruction)
    return stages


def _ignored(path: str) -> bool:
    """As .dockerignore decides: the last matching line."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if not line or line.startswith("#"):
            continue
        names = path.split("/")
        prefixes = ["/".join(names[: count + 1]) for count in range(len(names))]
        anywhere = pattern.removeprefix("**/")
        candidates = names if pattern.startswith("**/") else prefixes
        if any(fnmatch.fnmatchcase(candidate, anywhere) for candidate in candidates):
            ignored = not line.startswith("!")
    return ignored


def _copied() -> list[str]:
    build = _stages()[0]
    sources = [source for word, rest in build if word == "COPY" for source in rest.split()[:-1]]
    paths = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if ".venv" not in path.parts]
    wanted = [path for path in paths if any(path == source or path.startswith(f"{source}/") for source in sources)]
    return sorted(path for path in wanted if (ROOT / path).is_file() and not _ignored(path))


def test_the_image_holds_the_product_and_nothing_else() -> None:
    copied = _copied()
    assert {path.split("/")[0] for path in copied} == {
        "constraints.txt",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "snapshot",
        "xds_server",
    }
    assert not [path for path in copied if "__pycache__" in path]
    assert _ignored(".git/config")
    assert _ignored("tests/test_repository.py")
    assert not _ignored("xds_server/app.py")


def test_the_image_runs_the_control_plane_as_nobody_in_particular() -> None:
    final = dict(_stages()[-1])
    assert final["ENTRYPOINT"] == '["kuma-cp", "run"]'
    assert final["HEALTHCHECK"].endswith('CMD ["kuma-cp", "health"]')
    assert final["USER"] not in {"root", "0"}
    assert final["VOLUME"] == "/var/lib/koguma"
    assert "KUMA_GENERAL_WORK_DIR=/var/lib/koguma" in final["ENV"]
    assert "PYTHONDONTWRITEBYTECODE=1" in final["ENV"]
    assert not [rest for word, rest in _stages()[-1] if word == "COPY" and "--from=build" not in rest]


@pytest.mark.slow
def test_the_installation_of_the_image_works_from_what_it_copies(tmp_path: Path) -> None:
    source, target = tmp_path / "src", tmp_path / "koguma"
    for path in _copied():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, source / path)
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    for word, rest in _stages()[0]:
        if word == "RUN":
            command = shlex.split(rest.replace("/opt/koguma", str(target)))
            done = subprocess.run(command, check=False, cwd=source, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
    for command in ("kuma-cp", "kuma-dp", "kumactl"):
        done = subprocess.run(
            [target / "bin" / command, "--help"], check=True, cwd=tmp_path, capture_output=True, text=True
        )
        assert "run" in done.stdout or "apply" in done.stdout
