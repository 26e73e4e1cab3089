"""What `kumactl apply -f` names: a file, the files of a directory, or stdin, cut into documents.

Nothing is sent before every document of every file has been read and its type, name and mesh checked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapshot.model.codec import decode_spec
from snapshot.model.decoding import DecodeError
from snapshot.registry import TypeDescriptor
from xds_server.cli.resource_types import is_global, of_document, resource_path
from xds_server.cli.rest import CommandError
from xds_server.dp.documents import DocumentError, name_violations, parse, render

SUFFIXES = (".yaml", ".yml", ".json")
TEMPLATE = "; it looks like a template: give its values by -v KEY=VALUE"


@dataclass(frozen=True)
class Item:
    """One resource to apply; `mesh` is "" for global types."""

    kind: TypeDescriptor
    mesh: str
    name: str
    document: Mapping[str, Any]

    def path(self) -> str:
        """Where the REST API keeps it."""
        return resource_path(self.kind, self.mesh, self.name)

    def warnings(self) -> tuple[str, ...]:
        """What in it has no effect (unknown fields), for a control plane that does not say so, as Kuma's.

        What is wrong in it, the control plane says.
        """
        try:
            return decode_spec(self.kind.name, self.document).warnings
        except DecodeError:
            return ()


def read_items(source: str, values: Mapping[str, str], default_mesh: str) -> list[Item]:
    """All resources of the source, checked. A document without `mesh` goes to `default_mesh`.

    Raises CommandError that lists everything wrong, each with its file and place.
    """
    items: list[Item] = []
    faults: list[str] = []
    for origin, text in _texts(source):
        try:
            documents = parse(render(text, values) if values else text)
        except DocumentError as error:
            template = (
                "; it looks like a template: give its values by -v KEY=VALUE" if "{{" in text and not values else ""
            )
            faults.append(f"{origin}: {error}{template}")
            continue
        for number, document in enumerate(documents, 1):
            place = f"{origin}, document {number}" if len(documents) > 1 else origin
            try:
                items.append(_item(document, default_mesh))
            except CommandError as error:
                faults.append(f"{place}: {error}")
    if faults:
        raise CommandError("nothing was applied:\n" + "\n".join(f"* {fault}" for fault in faults))
    if not items:
        raise CommandError(f"{source}: no resource in it")
    return items


def _item(document: Mapping[str, Any], default_mesh: str) -> Item:
    kind = of_document(document)
    if is_global(kind):
        whole: Mapping[str, Any] = document
    else:
        whole = {"type": kind.name, "mesh": default_mesh, **document}
    if wrong := list(name_violations(whole, mesh_scoped=not is_global(kind))):
        raise CommandError(f"{kind.name} {document.get('name', '')!r}: {'; '.join(wrong)}")
    return Item(kind, "" if is_global(kind) else str(whole["mesh"]), str(whole["name"]), whole)


def _texts(source: str) -> Iterator[tuple[str, str]]:
    if source == "-":
        try:
            yield "stdin", sys.stdin.read()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"-f - cannot be read: {_reason(error)}") from error
        return
    if source.startswith(("http://", "https://")):
        raise CommandError(f"-f {source}: URLs are not supported by this version; download it and pipe it to -f -")
    for path in _files(Path(source)):
        try:
            yield str(path), path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"-f {path} cannot be read: {_reason(error)}") from error


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else "it is not UTF-8 text"


def _files(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(one for one in path.iterdir() if one.suffix in SUFFIXES and one.is_file())
    if not found:
        raise CommandError(f"-f {path}: no {', '.join(SUFFIXES)} file in this directory")
    return found
