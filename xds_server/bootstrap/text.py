"""A bootstrap as YAML that everybody reads alike.

Kuma's kuma-dp parses it by Go's rules, Envoy by those of yaml-cpp, and both take an unquoted `y`, `1e5` or `0o7` for
something other than text. So every text that is not plainly a word is quoted, and nothing is written as an alias.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

_WORD: Final = re.compile(r"[A-Za-z][A-Za-z_]{2,}")
_NOT_WORDS: Final = frozenset({"true", "false", "yes", "off", "null", "nan", "inf", "infinity"})


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # one of two classes
    def ignore_aliases(self, data: Any) -> bool:
        """Equal parts are written out each time."""
        del data
        return True


def _text(dumper: Any, text: str) -> yaml.ScalarNode:
    plain = _WORD.fullmatch(text) and text.lower() not in _NOT_WORDS
    node: yaml.ScalarNode = dumper.represent_scalar("tag:yaml.org,2002:str", text, None if plain else '"')
    return node


_Dumper.add_representer(str, _text)


def as_yaml(values: Mapping[str, Any]) -> str:
    """The document, keys sorted."""
    document: str = yaml.dump(values, Dumper=_Dumper, sort_keys=True, width=1_000_000)
    return document
