"""Reads the settings, reports everything that is wrong at once, and prints them as `/config` does."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from xds_server.config.inapplicable import IGNORED_PREFIXES, REFUSED, SECRETS
from xds_server.config.leaves import leaves, shown
from xds_server.config.tree import Config, Node

_PAIRS = ("general", "dpServer", "apiServer.https")


class ConfigError(Exception):
    """The settings cannot be used; one line for each fault, naming key, value and what is allowed."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("Invalid configuration: " + "; ".join(faults))


class Loaded(NamedTuple):
    """Settings, and what the operator should know about them (one text for each)."""

    config: Config
    warnings: tuple[str, ...]


class _Given(NamedTuple):
    path: str
    raw: object
    origin: str


def load(
    file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, object] | None = None,
) -> Loaded:
    """Settings from a YAML file, environment variables and flags (by path, such as `general.workDir`).

    Raises ConfigError with all faults.
    """
    faults: list[str] = []
    warnings: list[str] = []
    given = [*_from_file(file, warnings), *_from_environment(environ)]
    given += [_Given(path, raw, "flag") for path, raw in (flags or {}).items() if raw is not None]
    values = {path: leaf.default for path, leaf in leaves().items()}
    for path, raw, origin in given:
        leaf = leaves()[path]
        try:
            values[path] = leaf.parse(raw)
        except ValueError as fault:
            secret = path in SECRETS
            faults.append(f"{path}: {'*****' if secret else repr(raw)} {fault} (from {origin})")
            continue
        if leaf.why_not and path in REFUSED and values[path] != leaf.default:
            faults.append(f"{path}: {raw!r} {leaf.why_not} (from {origin})")
        elif leaf.why_not:
            warnings.append(f"{path} has no effect: {leaf.why_not} (from {origin})")
    faults += _across(values)
    if faults:
        raise ConfigError(faults)
    inapplicable = {path: values[path] for path, leaf in leaves().items() if leaf.why_not}
    tree = _tree(Config(), values)
    return Loaded(msgspec.structs.replace(tree, inapplicable=inapplicable), tuple(dict.fromkeys(warnings)))


def _from_file(file: Path | None, warnings: list[str]) -> Iterator[_Given]:
    if file is None:
        return
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f'Failed to access configuration file "{file}": {error.strerror}']) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError([f'Failed to parse configuration file "{file}": {reason}']) from error
    if document is None:
        return
    if not isinstance(document, dict):
        raise ConfigError([f'configuration file "{file}": must hold a mapping of keys to values'])
    yield from _walk(document, "", str(file), warnings)


def _walk(document: Mapping[str, Any], prefix: str, origin: str, warnings: list[str]) -> Iterator[_Given]:
    for key, value in document.items():
        path = f"{prefix}{key}"
        if path in leaves():
            yield _Given(path, value, origin)
        elif path.startswith(IGNORED_PREFIXES) or f"{path}." in IGNORED_PREFIXES:
            warnings.append(f"{path} has no effect: only environment universal is supported (from {origin})")
        elif isinstance(value, dict) and any(known.startswith(path + ".") for known in leaves()):
            yield from _walk(value, path + ".", origin, warnings)
        elif value is not None or not any(known.startswith(path + ".") for known in leaves()):
            nearest = difflib.get_close_matches(path, leaves(), 1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            warnings.append(f"{path} is not a known key and was ignored (from {origin}){hint}")


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Given]:
    for leaf in leaves().values():
        for variable in leaf.env:
            if variable in environ:
                yield _Given(leaf.path, environ[variable], variable)


def _across(values: Mapping[str, Any]) -> Iterator[str]:
    """Rules that concern two settings."""
    for prefix in _PAIRS:
        cert, key = f"{prefix}.tlsCertFile", f"{prefix}.tlsKeyFile"
        if bool(values[cert]) != bool(values[key]):
            yield f"{cert}, {key}: both or neither must be set"
    if not values["apiServer.http.enabled"] and not values["apiServer.https.enabled"]:
        yield "apiServer.http.enabled, apiServer.https.enabled: one must be true"
    ports: dict[int, str] = {}
    for path in _listening(values):
        port = values[path]
        if port and port in ports:
            yield f"{path}: {port} is also {ports[port]}; choose another port"
        ports.setdefault(port, path)


def _listening(values: Mapping[str, Any]) -> Iterator[str]:
    for scheme in ("http", "https"):
        if values[f"apiServer.{scheme}.enabled"]:
            yield f"apiServer.{scheme}.port"
    yield from ("xdsServer.port", "dpServer.port", "diagnostics.serverPort")


def _tree(node: Node, values: Mapping[str, Any], prefix: str = "") -> Any:
    changes = {}
    for field in msgspec.structs.fields(node):
        path, default = prefix + field.encode_name, getattr(node, field.name)
        if isinstance(default, Node):
            changes[field.name] = _tree(default, values, path + ".")
        elif path in values:
            changes[field.name] = values[path]
    return msgspec.structs.replace(node, **changes)


def to_rest(config: Config) -> dict[str, Any]:
    """The effective settings as `/config` shows them: durations as text, secrets as `*****`."""
    shown_tree: dict[str, Any] = {}
    for path, leaf in leaves().items():
        value = config.inapplicable.get(path, leaf.default) if leaf.why_not else _at(config, path)
        *branches, name = path.split(".")
        at = shown_tree
        for branch in branches:
            at = at.setdefault(branch, {})
        at[name] = "*****" if path in SECRETS else shown(value)
    return shown_tree


def _at(node: Any, path: str) -> Any:
    for name in path.split("."):
        fields = {field.encode_name: field.name for field in msgspec.structs.fields(node)}
        node = getattr(node, fields[name])
    return node
