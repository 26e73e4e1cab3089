"""Who may open a stream: credential, identity, binding, number of streams. The same for every service (XP-147)."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc

from snapshot.model.meta import ProxyKey
from xds_server.ads.connections import Connections, PeerEnd
from xds_server.ads.node import invalid, parse_node_id, read_identity
from xds_server.ads.ports import Authenticator, Ending, Identity, Refused
from xds_server.ads.settings import AdsSettings

AUTHORIZATION: Final = "authorization"
READ = Callable[[], Awaitable[Any]]


def authorization_of(context: Any) -> tuple[str, ...]:
    """All values of the metadata key `authorization`."""
    return tuple(
        value if isinstance(value, str) else value.decode("latin-1")
        for key, value in context.invocation_metadata() or ()
        if key == AUTHORIZATION
    )


class Admission:
    """Admits streams and counts those of each proxy."""

    def __init__(self, settings: AdsSettings, authenticator: Authenticator, connections: Connections) -> None:
        self.settings = settings
        self.authenticator = authenticator
        self.connections = connections
        self.stopping = False
        """Whether the server is going down: then no end of a stream says anything about its proxy."""
        self._streams: dict[ProxyKey, int] = {}

    def connected(self, peer: str) -> None:
        """A stream of this peer begins; answer with `disconnected` whatever comes. Raises Refused."""
        count = self.connections.opened(peer)
        limit = self.settings.connections_per_address
        if limit and count > limit:
            raise Refused(
                "RESOURCE_EXHAUSTED", f"more than {limit} connections from this address; try another instance"
            )

    def disconnected(self, peer: str) -> None:
        """The stream is gone."""
        self.connections.closed(peer)

    async def first(self, read: READ, parse: Callable[[bytes], Any]) -> Any | None:
        """The first message of a stream; None where the client said nothing and half-closed. Raises Refused."""
        try:
            async with asyncio.timeout(self.settings.first_request_s):
                raw = await read()
        except TimeoutError:
            raise Refused(
                "DEADLINE_EXCEEDED", f"no request within {self.settings.first_request_s:g} s of opening the stream"
            ) from None
        return None if raw is grpc.aio.EOF else parse(raw)

    async def admit(
        self,
        context: Any,
        message: Any,
        before_bind: Callable[[Identity], Awaitable[None]] | None = None,
    ) -> tuple[Identity, object]:
        """Identity and subject of the client that sent this first message. Raises Refused.

        The credential is verified before the metadata is read, the binding after it (R §5.4, XP-146).
        """
        if not message.HasField("node"):
            raise invalid("request must have a valid Proxy ID: the first request of a stream must carry `node`")
        proxy = parse_node_id(message.node.id)
        subject = await self.authenticator.verify(authorization_of(context), proxy)
        peer = context.peer()

        async def is_alive() -> bool:
            return self.connections.answers(peer)

        identity = dataclasses.replace(read_identity(message), peer=peer, is_alive=is_alive)
        if before_bind is not None:
            await before_bind(identity)
        await self.authenticator.bind(subject, identity)
        return identity, subject

    def enter(self, proxy: ProxyKey) -> None:
        """One more stream of this proxy. Raises Refused."""
        limit = self.settings.streams_per_proxy
        count = self._streams.get(proxy, 0)
        if limit and count >= limit:
            raise Refused(
                "RESOURCE_EXHAUSTED", f"{proxy.mesh}.{proxy.name} has {count} open streams, the limit is {limit}"
            )
        self._streams[proxy] = count + 1

    def leave(self, proxy: ProxyKey) -> None:
        """One stream less."""
        count = self._streams.pop(proxy, 1) - 1
        if count > 0:
            self._streams[proxy] = count

    async def ending(self, peer: str) -> Ending:
        """How a stream ended that we did not end."""
        if self.stopping:
            return Ending.SHUTDOWN
        return Ending.VANISHED if await self.connections.ended(peer) is PeerEnd.VANISHED else Ending.LEFT
