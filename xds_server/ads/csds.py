"""CSDS: what this server holds about each connected client, and how the client stands (P §22)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import grpc
from envoy.service.status.v3.csds_pb2 import ClientConfig, ClientStatusRequest, ConfigStatus
from google.protobuf.message import DecodeError

from snapshot.cache.resource import XdsResource
from snapshot.model.meta import ProxyKey
from snapshot.stream import Stream, TypeStatus
from snapshot.stream.wire import data
from snapshot.topology.proxy import NodeInfo
from xds_server.ads.admission import authorization_of
from xds_server.ads.node import invalid, parse_node_id
from xds_server.ads.ports import Authenticator, End, Ending, Identity, Refused
from xds_server.ads.redaction import shown_body
from xds_server.clock import Clock

RESOURCES_PER_TURN: Final = 100
"""After so many resources the loop is given to the streams (XP-165)."""
MOST_BYTES: Final = 256 << 20
STRING_TESTS: Final[dict[str, Callable[[str, str], bool]]] = {
    "exact": str.__eq__,
    "prefix": str.startswith,
    "suffix": str.endswith,
    "contains": str.__contains__,
}
NARROW: Final = "narrow the question with node_matchers, or set exclude_resource_contents"


class Shown(Protocol):
    """What is looked at of a session."""

    @property
    def identity(self) -> Identity | None:
        """Who it is."""
        ...

    @property
    def stream(self) -> Stream | None:
        """What it has."""
        ...


class ClientStatus:
    """A proxy's credential sees its own node (named in `node`, or by one exact matcher); an admin's, all."""

    def __init__(self, clock: Clock, authenticator: Authenticator, sessions: dict[ProxyKey, set[Any]]) -> None:
        self._clock = clock
        self._authenticator = authenticator
        self._sessions = sessions

    async def fetch(self, raw: bytes, context: Any) -> bytes:
        """FetchClientStatus. Raises End."""
        try:
            return await self._answer(raw, context)
        except Refused as refused:
            raise End(refused.code, refused.text, Ending.LEFT) from refused

    async def stream(self, context: Any) -> None:
        """StreamClientStatus: one answer for each request, judged each time. Raises End."""
        while (raw := await context.read()) is not grpc.aio.EOF:
            await context.write(await self.fetch(raw, context))

    async def _answer(self, raw: bytes, context: Any) -> bytes:
        try:
            request = ClientStatusRequest.FromString(raw)
        except DecodeError as error:
            raise invalid(f"the request is not a ClientStatusRequest: {error}") from error
        matchers = [_matcher(index, matcher) for index, matcher in enumerate(request.node_matchers)]
        visible = await self._visible(request, context)
        shown = [proxy for proxy in visible if not matchers or any(matches(proxy) for matches in matchers)]
        parts: list[bytes] = []
        size = since_turn = 0
        for proxy in sorted(shown):
            for session in tuple(self._sessions.get(proxy, ())):
                config, count = self._config(session, contents=not request.exclude_resource_contents)
                parts.append(data(1, config))
                size += len(config)
                since_turn += count
                if size > MOST_BYTES:
                    raise Refused("RESOURCE_EXHAUSTED", f"the answer is larger than {MOST_BYTES >> 20} MiB; {NARROW}")
                if since_turn > RESOURCES_PER_TURN:
                    since_turn = 0
                    await asyncio.sleep(0)
        return b"".join(parts)

    async def _visible(self, request: Any, context: Any) -> Iterable[ProxyKey]:
        authorization = authorization_of(context)
        if await self._authenticator.is_admin(authorization):
            return list(self._sessions)
        exact = [matcher.node_id.exact for matcher in request.node_matchers if matcher.node_id.exact]
        node_id = request.node.id or (exact[0] if len(exact) == 1 else "")
        if not node_id:
            raise Refused(
                "PERMISSION_DENIED",
                "a proxy sees its own node only: name it in `node.id`. All nodes are shown to an admin's user token",
            )
        proxy = parse_node_id(node_id)
        subject = await self._authenticator.verify(authorization, proxy)
        await self._authenticator.bind(subject, Identity(proxy, NodeInfo()))
        return [proxy]

    def _config(self, session: Shown, *, contents: bool) -> tuple[bytes, int]:
        """One serialised ClientConfig, and how many entries it took."""
        config = ClientConfig()
        if session.identity is None or session.stream is None:
            return b"", 1
        config.node.id = session.identity.node_id
        config.node.user_agent_name = session.identity.user_agent
        for status in session.stream.status().values():
            self._add_type(config, status, contents=contents)
        return config.SerializeToString(), len(config.generic_xds_configs) + 1

    def _add_type(self, config: Any, status: TypeStatus, *, contents: bool) -> None:
        """An entry for each resource the client was sent; one without a name where it was sent none."""
        for resource in status.resources.values() or (None,):
            entry = config.generic_xds_configs.add(
                type_url=status.type_url, config_status=ConfigStatus.Value(status.state.value)
            )
            if status.sent_at_s is not None:
                ago_s = self._clock.monotonic_s() - status.sent_at_s
                entry.last_updated.FromMilliseconds(round((self._clock.now().timestamp() - ago_s) * 1000))
            if resource is not None:
                _describe(entry, resource, contents=contents)
            if status.nack is not None:
                ago_s = self._clock.monotonic_s() - status.nack.time_s
                entry.error_state.details = status.nack.detail
                entry.error_state.version_info = status.nack.version
                entry.error_state.last_update_attempt.FromMilliseconds(
                    round((self._clock.now().timestamp() - ago_s) * 1000)
                )


def _describe(entry: Any, resource: XdsResource, *, contents: bool) -> None:
    entry.name = resource.name
    entry.version_info = resource.version
    if contents:
        entry.xds_config.type_url = resource.type_url
        entry.xds_config.value = shown_body(resource)


def _matcher(index: int, matcher: Any) -> Callable[[ProxyKey], bool]:
    """A predicate over proxies. Metadata is not kept, and regular expressions may take forever: both are refused."""
    where = f"node_matchers[{index}]"
    if matcher.node_metadatas:
        raise invalid(f"{where}.node_metadatas: not supported; match by node_id")
    pattern = matcher.node_id
    kind = pattern.WhichOneof("match_pattern")
    if kind not in STRING_TESTS:
        raise invalid(f"{where}.node_id: must be one of {', '.join(STRING_TESTS)}")
    fold: Callable[[str], str] = str.casefold if pattern.ignore_case and kind != "exact" else str
    wanted, test = fold(getattr(pattern, kind)), STRING_TESTS[kind]
    return lambda proxy: test(fold(f"{proxy.mesh}.{proxy.name}"), wanted)
