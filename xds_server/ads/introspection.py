"""gRPC's own services: health and reflection. They tell which connections are gRPC's, as discovery streams do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
Spoke = Callable[[str], None]


class Health(health_aio.HealthServicer):  # type: ignore[misc]  # gRPC publishes no types
    """`grpc.health.v1`; `spoke(peer)` is told of each call."""

    def __init__(self, spoke: Spoke) -> None:
        super().__init__()
        self._spoke = spoke

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name
        """Answer the status of a service."""
        self._spoke(context.peer())
        return await super().Check(request, context)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802  # gRPC's name
        """Follow the status of a service."""
        self._spoke(context.peer())
        await super().Watch(request, context)

    async def say(self, services: Iterable[str], *, serving: bool) -> None:
        """Set the status of `services` and of the server as a whole."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *services):
            await self.set(name, status)


class Reflection(reflection.aio.ReflectionServicer):  # type: ignore[misc]  # gRPC publishes no types
    """`grpc.reflection.v1alpha`; `spoke(peer)` is told of each call."""

    def __init__(self, services: Iterable[str], spoke: Spoke) -> None:
        super().__init__(service_names=tuple(services))
        self._spoke = spoke

    async def ServerReflectionInfo(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802  # as above
        """Answer what is asked about the services."""
        self._spoke(context.peer())
        async for answer in super().ServerReflectionInfo(request_iterator, context):
            yield answer


def serve_introspection(server: Any, services: Iterable[str], spoke: Spoke) -> tuple[Health, tuple[str, ...]]:
    """Add both to the server; answers the health servicer and the names of all services, these two included."""
    names = (*services, HEALTH, reflection.SERVICE_NAME)
    health = Health(spoke)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(Reflection(names, spoke), server)
    return health, names
