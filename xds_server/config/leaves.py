"""Every setting as a row: path, environment variables, kind, rule. Derived once from the tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from ipaddress import ip_address
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from xds_server.config.durations import format_duration, parse_duration_s
from xds_server.config.inapplicable import INAPPLICABLE, IRREGULAR
from xds_server.config.tree import HOSTNAME, Config, Node, Rule, Seconds


class Leaf(NamedTuple):
    """One setting. `kind` is one of str, bool, int, Seconds, tuple; `why_not` is "" where it has an effect."""

    path: str
    env: tuple[str, ...]
    kind: Any
    default: Any
    rule: Rule
    why_not: str = ""

    def parse(self, raw: object) -> Any:
        """The value of what a file or a variable says; ValueError says what is allowed."""
        value = _PARSERS[self.kind](raw)
        _check(value, self.rule)
        return value


def environment_variable(path: str) -> str:
    """`apiServer.http.port` → `KUMA_API_SERVER_HTTP_PORT`."""
    return "KUMA_" + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", path).replace(".", "_").upper()


@cache
def leaves() -> Mapping[str, Leaf]:
    """All settings by path."""
    found = {leaf.path: leaf for leaf in _branch(Config, Config(), "")}
    for path, (default, why_not) in INAPPLICABLE.items():
        env = IRREGULAR.get(path, (environment_variable(path),))
        found[path] = Leaf(
            path, env, Seconds if isinstance(default, float) else type(default), default, Rule(), why_not
        )
    return found


def _branch(node: type[Node], defaults: Node, prefix: str) -> Iterator[Leaf]:
    hints = get_type_hints(node, include_extras=True)
    for field in msgspec.structs.fields(node):
        hint, rule = hints[field.name], Rule()
        if get_origin(hint) is Annotated:
            hint, rule = get_args(hint)
        path = prefix + field.encode_name
        default = getattr(defaults, field.name)
        if isinstance(default, Node):
            yield from _branch(type(default), default, path + ".")
        elif path != "inapplicable":
            kind = tuple if get_origin(hint) is tuple else hint
            yield Leaf(path, rule.env or (environment_variable(path),), kind, default, rule)


def _text(raw: object) -> str:
    if isinstance(raw, bool | int | float):
        return str(raw).lower() if isinstance(raw, bool) else str(raw)
    if raw is None:
        return ""
    if isinstance(raw, str):
        return raw
    raise ValueError("must be text")


def _boolean(raw: object) -> bool:
    word = _text(raw).lower()
    if word in {"true", "1", "t"}:
        return True
    if word in {"false", "0", "f"}:
        return False
    raise ValueError("must be true or false")


def _integer(raw: object) -> int:
    try:
        return int(_text(raw))
    except ValueError:
        raise ValueError("must be a whole number") from None


def _seconds(raw: object) -> Seconds:
    try:
        return Seconds(parse_duration_s(_text(raw)))
    except ValueError:
        raise ValueError("must be a duration such as 500ms, 10s or 1h30m") from None


def _list(raw: object) -> tuple[str, ...]:
    if isinstance(raw, list):
        return tuple(_text(item) for item in raw)
    return tuple(item.strip() for item in _text(raw).split(",") if item.strip())


_PARSERS: Mapping[Any, Any] = {str: _text, bool: _boolean, int: _integer, Seconds: _seconds, tuple: _list}


def _check(value: Any, rule: Rule) -> None:
    if value in rule.unsupported:
        raise ValueError(f"is not supported by this version; allowed: {', '.join(rule.allowed)}")
    if rule.allowed and value not in rule.allowed:
        raise ValueError(f"must be one of {', '.join(filter(None, rule.allowed))}")
    if rule.low is not None and value < rule.low:
        raise ValueError("must be positive" if rule.low == 1e-9 else f"must be at least {rule.low:g}")  # noqa: PLR2004  # the mark of Positive
    if rule.high is not None and value > rule.high:
        raise ValueError(f"must be at most {rule.high:g}")
    if rule.ip:
        _check_ip(value)
    if rule.hostname and value and HOSTNAME.fullmatch(value) is None:
        raise ValueError("must be a DNS name: lower-case letters, digits, '-' and '.'")


def _check_ip(value: str) -> None:
    try:
        ip_address(value)
    except ValueError:
        raise ValueError("must be an IP address") from None


def shown(value: Any) -> Any:
    """A value as `/config` prints it."""
    if isinstance(value, tuple):
        return list(value)
    return format_duration(value) if isinstance(value, float) else value
