"""Response bodies: put together from serialised resources, once for all streams that need the same difference."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from snapshot.cache.resource import XdsResource
from snapshot.cache.type_url import ENDPOINT
from snapshot.stream.limits import MIB
from snapshot.stream.wire import data, head, text

_Key = tuple[bytes, str, bool, tuple[int, ...], tuple[str, ...]]

WRAPPING_BYTES: Final = 40
"""Upper bound of the tags and lengths around one resource, beside its name, version and type URL."""


class BodyCache:
    """The bodies built lately, shared by every stream of a process. Bounded by bytes; the least recently used go first.

    Keys are the identities of the resources, which an entry keeps alive: equal content is one object (L5), and
    comparing identities costs nothing.
    """

    def __init__(self, max_bytes: int = 16 * MIB) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[_Key, tuple[bytes, tuple[XdsResource, ...]]] = OrderedDict()

    def sotw(self, identifier: bytes, type_url: str, resources: Sequence[XdsResource]) -> bytes:
        """A DiscoveryResponse without `version_info` and `nonce`."""
        return self._get((identifier, type_url, False, tuple(map(id, resources)), ()), resources)

    def delta(
        self, identifier: bytes, type_url: str, resources: Sequence[XdsResource], removed: Sequence[str]
    ) -> bytes:
        """A DeltaDiscoveryResponse without `system_version_info` and `nonce`."""
        return self._get((identifier, type_url, True, tuple(map(id, resources)), tuple(removed)), resources)

    def _get(self, key: _Key, resources: Sequence[XdsResource]) -> bytes:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            return entry[0]
        identifier, type_url, delta, _, removed = key
        if delta:
            body = delta_body(identifier, type_url, resources, removed)
        else:
            body = sotw_body(identifier, type_url, resources)
        if len(body) <= self._max_bytes // 4:
            self._entries[key] = (body, tuple(resources))
            self._bytes += len(body)
            while self._bytes > self._max_bytes:
                _, (old, _) = self._entries.popitem(last=False)
                self._bytes -= len(old)
        return body


def sotw_body(identifier: bytes, type_url: str, resources: Sequence[XdsResource]) -> bytes:
    """Fields resources (2, each an Any), type_url (4) and control_plane (6) of a DiscoveryResponse."""
    any_type = text(1, type_url)
    parts: list[bytes] = []
    for resource in resources:
        value = head(2, len(resource.body))
        parts += (head(2, len(any_type) + len(value) + len(resource.body)), any_type, value, resource.body)
    return b"".join((*parts, text(4, type_url), data(6, data(1, identifier))))


def delta_body(identifier: bytes, type_url: str, resources: Sequence[XdsResource], removed: Sequence[str]) -> bytes:
    """Fields resources (2), type_url (4), removed_resources (6) and control_plane (7) of a DeltaDiscoveryResponse."""
    any_type = text(1, type_url)
    parts: list[bytes] = []
    for resource in resources:
        label = text(1, resource.version) + text(3, resource.name)
        value = head(2, len(resource.body))
        any_length = len(any_type) + len(value) + len(resource.body)
        any_head = head(2, any_length)
        parts += (head(2, len(label) + len(any_head) + any_length), label, any_head, any_type, value, resource.body)
    parts += (text(6, name) for name in removed)
    return b"".join((*parts, text(4, type_url), data(7, data(1, identifier))))


def cost(resource: XdsResource) -> int:
    """About how many bytes the resource takes in a response; never less than it really takes in either variant."""
    return len(resource.body) + 4 * len(resource.name) + len(resource.type_url) + len(resource.version) + WRAPPING_BYTES


def empty_endpoints(name: str) -> XdsResource:
    """A ClusterLoadAssignment without endpoints, for a cluster that is gone and still waited for (XP-88)."""
    return XdsResource(ENDPOINT, name, text(1, name))
