"""What a client says on a stream, as frozen values, and how they are read from protobuf messages. Decides nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Nack:
    """`error_detail` of a request: a google.rpc.Status code and the client's own words."""

    code: int
    message: str


class SotwRequest(NamedTuple):
    """One DiscoveryRequest: the whole list of names of one type, and perhaps an answer to a response (P §3)."""

    type_url: str = ""
    names: tuple[str, ...] = ()
    version_info: str = ""
    nonce: str = ""
    error: Nack | None = None


class DeltaRequest(NamedTuple):
    """One DeltaDiscoveryRequest: names added and removed, and perhaps an answer to a response (P §4).

    `initial_versions` (name to version) counts in the first message of a type only (XP-96).
    """

    type_url: str = ""
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = NOTHING
    nonce: str = ""
    error: Nack | None = None


def decode_sotw(message: Any) -> SotwRequest:
    """The value of a parsed `DiscoveryRequest`. Resource locators are served by their plain name (XP-116)."""
    return SotwRequest(
        type_url=sys.intern(message.type_url),
        names=_names(message.resource_names, message.resource_locators),
        version_info=message.version_info,
        nonce=message.response_nonce,
        error=_nack(message),
    )


def decode_delta(message: Any) -> DeltaRequest:
    """The value of a parsed `DeltaDiscoveryRequest`. Resource locators are served by their plain name (XP-116)."""
    return DeltaRequest(
        type_url=sys.intern(message.type_url),
        subscribe=_names(message.resource_names_subscribe, message.resource_locators_subscribe),
        unsubscribe=_names(message.resource_names_unsubscribe, message.resource_locators_unsubscribe),
        initial_versions=_claims(message.initial_resource_versions),
        nonce=message.response_nonce,
        error=_nack(message),
    )


def _names(names: Any, locators: Any) -> tuple[str, ...]:
    """Interned, so that thousands of streams that name the same resource hold the name once."""
    if not names and not locators:
        return ()
    return tuple(sys.intern(name) for name in (*names, *(locator.name for locator in locators)))


def _claims(versions: Any) -> Mapping[str, str]:
    return {sys.intern(name): version for name, version in versions.items()} if versions else NOTHING


def _nack(message: Any) -> Nack | None:
    if not message.HasField("error_detail"):
        return None
    return Nack(message.error_detail.code, message.error_detail.message)
