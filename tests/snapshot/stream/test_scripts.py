"""Conversation scripts: each proves the rules in its first line. KOGUMA_REGENERATE=1 writes the output anew."""

import os
from pathlib import Path

import pytest

from tests.support.conversation import run_script

REGENERATE = bool(os.environ.get("KOGUMA_REGENERATE"))
SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.fixture(scope="session")
def rewrite():
    """Scripts to write anew, when all tests have run."""
    said = {}
    yield said
    for path, text in said.items():
        path.write_text(text)


def rules_of(path: Path) -> list[str]:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# rules: XP-"), f"{path.name}: the first line names the rules: '# rules: XP-52 …'"
    return first.removeprefix("# rules: ").split()


@pytest.mark.parametrize(
    ("path", "text"),
    [pytest.param(path, path.read_text(), id=path.stem, marks=pytest.mark.rule(*rules_of(path))) for path in SCRIPTS],
)
def test_conversation(path, text, rewrite):
    said = run_script(text)
    if REGENERATE:
        rewrite[path] = said
        return
    assert said == text
