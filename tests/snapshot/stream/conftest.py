"""Selection by rule and, for the mutation test, a changed copy of snapshot/stream in front of the real one."""

import os
import sys

import snapshot

if mutant := os.environ.get("KOGUMA_MUTANT"):
    assert "snapshot.stream" not in sys.modules
    snapshot.__path__.insert(0, mutant)


def pytest_collection_modifyitems(config, items):
    rule = os.environ.get("KOGUMA_RULE")
    if rule:
        chosen = [item for item in items if any(rule in mark.args for mark in item.iter_markers("rule"))]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen
