"""Conversation scripts: each proves the rules in its first line. KOGUMA_REGENERATE=1 writes the output anew."""

import os
from pathlib import Path

import pytest

from tests.support.conversation import run_script

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


def rules_of(path: Path) -> list[str]:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# rules: XP-"), f"{path.name}: the first line names the rules: '# rules: XP-52 …'"
    return first.removeprefix("# rules: ").split()


@pytest.mark.parametrize(
    ("path", "text"),
    [pytest.param(path, path.read_text(), id=path.stem, marks=pytest.mark.rule(*rules_of(path))) for path in SCRIPTS],
)
def test_conversation(path, text):
    said = run_script(text)
    if os.environ.get("KOGUMA_REGENERATE"):
        path.write_text(said)
        return
    assert said == text
