"""Text that users write → documents: Mustache, then YAML or JSON as Kuma's Go reads it. Shared with `kumactl`.

Never here: what a document means.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import chevron
import yaml
from chevron.tokenizer import ChevronError, tokenize

NAME = re.compile(r"[0-9a-z\-_]*")
LONGEST_NAME = 253
INVALID_NAME = "invalid characters. Valid characters are numbers, lowercase latin letters and '-', '_' symbols."


class DocumentError(Exception):
    """A text is no template, no YAML, or not one mapping per document. The text says where."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # chosen at run time
    """YAML without timestamps: an unquoted date is a string, as in the JSON that travels."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def render(template: str, values: Mapping[str, str]) -> str:
    """The template filled in (R §8.1): undefined is empty, `{{x}}` escapes HTML, `{{{x}}}` does not.

    A dotted name `a.b` is nested data. Raises DocumentError. Partials are never read from disk.
    """
    try:
        return str(chevron.render(template, _nested(values), partials_path=None))
    except (ChevronError, IndexError) as error:
        raise _not_mustache(error) from error


def unset_variables(template: str, values: Mapping[str, str]) -> list[str]:
    """Names that a rendered part of the template shows, and that no value was given for; each once, in order.

    A section is a question, not a demand: its own name may be undefined. Raises DocumentError.
    """
    unset: dict[str, None] = {}
    shown: list[bool] = []
    try:
        for tag, name in tokenize(template):
            if tag in {"section", "inverted section"}:
                shown.append(_has(values, name) == (tag == "section"))
            elif tag == "end":
                shown.pop()
            elif tag in {"variable", "no escape"} and all(shown) and not _is_defined(values, name):
                unset[name] = None
    except (ChevronError, IndexError) as error:
        raise _not_mustache(error) from error
    return list(unset)


def _has(values: Mapping[str, str], name: str) -> bool:
    """Whether a section of that name is shown: empty text is as good as none."""
    return bool(values.get(name)) or any(one.startswith(f"{name}.") for one in values)


def _is_defined(values: Mapping[str, str], name: str) -> bool:
    # A section over a table reaches its fields without their prefix; "." is the section's own value.
    return name == "." or any(one == name or one.startswith(f"{name}.") or one.endswith(f".{name}") for one in values)


def _not_mustache(error: Exception) -> DocumentError:
    reason = " ".join(str(error).split()) or "a tag is not closed"
    return DocumentError(f"the template is not valid Mustache: {reason}")


def _nested(values: Mapping[str, str]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        node = root
        for step in path:
            node = node.setdefault(step, {})
            if not isinstance(node, dict):
                raise DocumentError(f"variable {name!r} contradicts the variable {step!r}: it cannot be both")
        if isinstance(node.get(last), dict):
            raise DocumentError(f"variable {name!r} contradicts one whose name begins with {name + '.'!r}")
        node[last] = value
    return root


def parse(text: str) -> list[dict[str, Any]]:
    """All documents of a YAML stream or JSON text, as what JSON can say; empty documents are left out.

    Raises DocumentError with line and column.
    """
    try:
        loaded = list(yaml.load_all(text, Loader=_Loader))
        documents = [json.loads(json.dumps(one, allow_nan=False)) for one in loaded if one is not None]
    except yaml.YAMLError as error:
        raise DocumentError(f"not valid YAML: {' '.join(str(error).split())}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise DocumentError(f"holds what JSON cannot say: {error}") from error
    for one in documents:
        if not isinstance(one, dict):
            raise DocumentError(f"a resource must be a mapping with type, mesh and name, not {json.dumps(one)[:80]}")
    return documents


def name_violations(document: Mapping[str, Any], *, mesh_scoped: bool) -> Iterator[str]:
    """What is wrong with `name` and `mesh`, each as `field: message` (R §2.1)."""
    for field in ("mesh", "name") if mesh_scoped else ("name",):
        value = document.get(field)
        if value is None or value == "":
            yield f"{field}: cannot be empty"
        elif not isinstance(value, str):
            yield f'{field}: must be a string, not {json.dumps(value)}; quote it: {field}: "{value}"'
        elif NAME.fullmatch(value) is None:
            yield f"{field}: {INVALID_NAME} ({value!r})"
        elif len(value) > LONGEST_NAME:
            yield f"{field}: must not be longer than {LONGEST_NAME} characters"
