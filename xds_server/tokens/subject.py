"""Whom a token speaks for, and whether that covers a given proxy (R §5.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PROXY_TYPES = ("dataplane", "ingress", "egress")


class TokenError(Exception):
    """A token is not accepted; the text says why, in Kuma's words."""


class BindingError(TokenError):
    """The token is good, but not for this proxy."""


@dataclass(frozen=True, slots=True)
class User:
    """A caller of the REST API."""

    name: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """What a data plane token allows. Empty name, mesh or type: any.

    `issued_ms` is set for stream credentials, which end with their proxy.
    """

    mesh: str
    name: str = ""
    type: str = ""
    tags: tuple[tuple[str, tuple[str, ...]], ...] = ()
    token_id: str = ""
    issued_ms: int | None = None

    def check(self, mesh: str, name: str, tag_sets: Iterable[Mapping[str, str]], proxy_type: str = "dataplane") -> None:
        """Whether this covers the proxy with these tag sets (inbounds and gateway). Raises BindingError."""
        self.check_node(mesh, name, proxy_type)
        values: dict[str, list[str]] = {}
        for tags in tag_sets:
            for key, value in tags.items():
                values.setdefault(key, [])
                if value not in values[key]:
                    values[key].append(value)
        for key, allowed in self.tags:
            if key not in values:
                raise BindingError(f'dataplane has no tag "{key}" required by the token')
            for value in sorted(values[key]):
                if value not in allowed:
                    shown = " ".join(f'"{item}"' for item in allowed)
                    raise BindingError(
                        f'dataplane contains tag "{key}" with value "{value}" which is not allowed with this token. '
                        f"Allowed values in token are [{shown}]"
                    )

    def check_node(self, mesh: str, name: str, proxy_type: str = "dataplane") -> None:
        """Whether this covers a proxy of that identity, tags aside. Raises BindingError."""
        for what, actual, allowed in (
            ("name", name, self.name),
            ("mesh", mesh, self.mesh),
            ("type", proxy_type, self.type),
        ):
            if allowed and allowed != actual:
                raise BindingError(f"proxy {what} from requestor: {actual} is different than in token: {allowed}")
