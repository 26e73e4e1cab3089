"""A raw xDS client over grpc.aio: says exactly what a test tells it to, and nothing by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from envoy.config.core.v3.base_pb2 import Node
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from google.protobuf.json_format import ParseDict

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
SOTW_METHOD = f"{ADS}/StreamAggregatedResources"
DELTA_METHOD = f"{ADS}/DeltaAggregatedResources"
SINGLE_TYPE_METHODS = {
    "Listeners": "/envoy.service.listener.v3.ListenerDiscoveryService",
    "Clusters": "/envoy.service.cluster.v3.ClusterDiscoveryService",
    "Endpoints": "/envoy.service.endpoint.v3.EndpointDiscoveryService",
    "Routes": "/envoy.service.route.v3.RouteDiscoveryService",
    "Secrets": "/envoy.service.secret.v3.SecretDiscoveryService",
}
ANY_TOKEN = "token"
PATIENCE_S = 5.0
QUIET_S = 0.15


def single_type(suffix: str, *, delta: bool) -> str:
    """Full method name: `single_type("Clusters", delta=True)`."""
    return f"{SINGLE_TYPE_METHODS[suffix]}/{'Delta' if delta else 'Stream'}{suffix}"


def node(node_id: str, metadata: Mapping[str, Any] | None = None, **fields: Any) -> Node:
    """A `Node`; `metadata` as plain JSON values, other fields by name."""
    message = Node(id=node_id, **fields)
    ParseDict(dict(metadata or {}), message.metadata)
    return message


def channel(port: int, ca_pem: bytes | None, **options: int) -> grpc.aio.Channel:
    """A channel of its own connection to 127.0.0.1:port; plain text where `ca_pem` is None."""
    settings = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1), *options.items()]
    if ca_pem is None:
        return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=settings)
    settings.append(("grpc.ssl_target_name_override", "localhost"))
    credentials = grpc.ssl_channel_credentials(root_certificates=ca_pem)
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=settings)


class XdsStream:
    """One stream. `method` is a full method name; bytes go out as they are where `raw` is used."""

    def __init__(
        self, grpc_channel: grpc.aio.Channel, method: str, token: str | Sequence[str] | None = ANY_TOKEN
    ) -> None:
        tokens = [token] if isinstance(token, str) else list(token or ())
        self.delta = "/Delta" in method
        self.call = grpc_channel.stream_stream(method)(metadata=[("authorization", value) for value in tokens])

    async def raw(self, message: bytes) -> None:
        """Send these bytes as one message."""
        await self.call.write(message)

    async def send(self, **fields: Any) -> None:
        """Send a DiscoveryRequest or DeltaDiscoveryRequest with these fields."""
        kind = DeltaDiscoveryRequest if self.delta else DiscoveryRequest
        await self.raw(kind(**fields).SerializeToString())

    async def receive(self, patience_s: float = PATIENCE_S) -> Any:
        """The next response; fails where the stream ends or stays silent."""
        raw = await asyncio.wait_for(self.call.read(), patience_s)
        assert raw is not grpc.aio.EOF, f"stream ended: {await self.call.code()} {await self.call.details()}"
        return (DeltaDiscoveryResponse if self.delta else DiscoveryResponse).FromString(raw)

    async def silent(self, for_s: float = QUIET_S) -> bool:
        """Whether nothing comes for a while. Spends the stream: a pending read is cancelled with its call."""
        reading = asyncio.ensure_future(self.call.read())
        done, _ = await asyncio.wait((reading,), timeout=for_s)
        if not done:
            self.call.cancel()
            await asyncio.wait((reading,))
            if not reading.cancelled():
                reading.exception()
        return not done

    async def ack(self, response: Any, **fields: Any) -> None:
        """Answer a response: SotW repeats the names given in `fields`."""
        fields = {"type_url": response.type_url, "response_nonce": response.nonce, **fields}
        if not self.delta:
            fields.setdefault("version_info", response.version_info)
        await self.send(**fields)

    async def ended(self, patience_s: float = PATIENCE_S) -> tuple[str, str]:
        """Name of the status and text the stream ends with; responses on the way are passed over."""
        async with asyncio.timeout(patience_s):
            try:
                while await self.call.read() is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError:
                pass  # the status is asked for below
            return (await self.call.code()).name, await self.call.details()

    async def half_close(self) -> None:
        """Say nothing more."""
        await self.call.done_writing()

    def cancel(self) -> None:
        """Reset the stream; the connection stays."""
        self.call.cancel()
