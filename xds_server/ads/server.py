"""The gRPC server: one port, all services, a life from `start` to a drained `stop`."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, TypeVar

import grpc

from snapshot.model.meta import ProxyKey
from snapshot.stream import BodyCache, Limits
from xds_server.ads.admission import Admission
from xds_server.ads.age import Ages
from xds_server.ads.connections import Connections
from xds_server.ads.csds import ClientStatus
from xds_server.ads.flow import LARGE_BYTES, LargeResponses, Turns, WriteWatch
from xds_server.ads.hds import HealthDiscovery, HealthParts, HealthSession
from xds_server.ads.introspection import serve_introspection
from xds_server.ads.ports import Authenticator, Dataplanes, End, Ending, Nodes, Observer, Registrar, TlsPair
from xds_server.ads.services import CSDS, DISCOVERY_METHODS, HDS, SERVICE_NAMES, Methods, load_descriptors
from xds_server.ads.session import Parts, Session
from xds_server.ads.settings import AdsSettings, channel_options
from xds_server.clock import Clock

_T = TypeVar("_T")
STOPPING: Final = End("UNAVAILABLE", "this control plane is shutting down; connect again", Ending.SHUTDOWN)
AGED: Final = End("UNAVAILABLE", "this connection has reached its maximum age; connect again", Ending.SHUTDOWN)
INTERNAL_TEXT: Final = "internal error of the control plane; its log has the reason"
ABORT_S: Final = 1.0
"""How long telling a client why its stream ends may take; a client that reads nothing is not waited for."""
LONGEST_TEXT_BYTES: Final = 2500
"""Of a status, where each may take 3: clients take 8 KiB of trailers, beyond that they see an error of their own."""
LONGEST_PAUSE_S: Final = 0.25
"""Between the ends of two streams: time for one client to be back elsewhere. More of it would serve nobody."""
FORCE_S: Final = 5.0
"""After the drain time: how long until whatever is left is cut (XP-141)."""


class AddressInUse(OSError):  # noqa: N818  # the outcome, as in `errno`
    """The port cannot be had."""


class AdsServer:
    """ADS, single-type discovery services, CSDS, HDS, health and reflection on one port.

    `tls` gives the pair to present and is asked at every connection (in a thread of gRPC's): a renewed certificate
    needs no restart (XP-151). None means plain text, which binds to loopback only. `hds` None: HDS is not offered.
    `dataplanes` (default: those of `hds`) tells when an operator deletes one: that ends its streams.
    """

    def __init__(
        self,
        settings: AdsSettings,
        *,
        tls: Callable[[], TlsPair] | None,
        clock: Clock,
        authenticator: Authenticator,
        registrar: Registrar,
        nodes: Nodes,
        observer: Observer,
        hds: HealthDiscovery | None = None,
        dataplanes: Dataplanes | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._observer = observer
        self._connections = Connections(
            silent_s=settings.handshake_timeout_s + 1,
            rejected=lambda count: observer.count("silent_connections", count),
            log=self._log_silent,
        )
        numbers = itertools.count(1)
        self._parts = Parts(
            settings=settings,
            clock=clock,
            admission=Admission(settings, authenticator, self._connections),
            registrar=registrar,
            nodes=nodes,
            observer=observer,
            bodies=BodyCache(),
            nonces=lambda: format(next(numbers), "x"),
            writes=WriteWatch(settings.write_timeout_s, clock.monotonic_s),
            turns=Turns(),
            large=LargeResponses(self._log_large),
            limits=limits or Limits(),
            open_sessions={},
            dataplanes=dataplanes or (hds.dataplanes if hds is not None else None),
        )
        self._hds = hds
        self._streams: set[Session | HealthSession] = set()
        self._deserted = asyncio.Event()
        self._ages = Ages(settings.max_connection_age_s, self._end_aged)
        self._server: Any = None
        self._health: Any = None
        self._offered: tuple[str, ...] = ()
        self._presented: TlsPair | None = None

    @property
    def open_streams(self) -> int:
        """Streams being served, admitted or not."""
        return len(self._streams)

    def sessions(self, proxy: ProxyKey) -> frozenset[Session]:
        """The admitted discovery streams of a proxy."""
        return frozenset(self._parts.open_sessions.get(proxy, ()))

    async def start(self, host: str, port: int) -> int:
        """Serve on `host:port` (0: any free port); answers the port. Raises AddressInUse, ValueError."""
        if self._tls is None and not _is_loopback(host):
            raise ValueError(f"plain text is served on loopback only, not on {host}; configure TLS")
        server = grpc.aio.server(handlers=[self._methods()], options=channel_options(self._settings))
        load_descriptors()
        offered = tuple(name for name in SERVICE_NAMES if name != HDS or self._hds is not None)
        self._health, self._offered = serve_introspection(server, offered, self._connections.spoke)
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._tls is None:
                bound = server.add_insecure_port(target)
            else:
                bound = server.add_secure_port(target, self._credentials(self._tls))
        except RuntimeError as error:
            raise AddressInUse(
                f"xdsServer.port: cannot listen on {target}: is another process using the port? "
                "Stop it, or choose another port (KUMA_XDS_SERVER_PORT)"
            ) from error
        self._connections.start(host, bound)
        await server.start()
        self._server = server
        await self._health.say(self._offered, serving=True)
        return int(bound)

    async def stop(self, drain_s: float | None = None) -> None:
        """End all streams over `drain_s` (default: the settings'), those without a response last (XP-141, XP-142)."""
        if self._server is None:
            return
        drain_s = self._settings.drain_s if drain_s is None else drain_s
        self._parts.admission.stopping = True
        await self._health.say(self._offered, serving=False)
        stopping = asyncio.ensure_future(self._server.stop(drain_s + FORCE_S))
        try:
            await self._drain(drain_s)
            await stopping
        finally:
            if not stopping.done():
                await self._server.stop(None)
            self._ages.close()
            self._parts.writes.close()
            self._connections.close()
            self._server = None

    # -- streams

    def _methods(self) -> Methods:
        def discovery(method: str) -> Callable[[Any], Awaitable[None]]:
            variant, default_type = DISCOVERY_METHODS[method]
            return lambda context: self._serve(context, Session(self._parts, context, variant, default_type))

        csds = ClientStatus(self._parts.clock, self._parts.admission.authenticator, self._parts.open_sessions)
        streams: dict[str, Callable[[Any], Awaitable[None]]] = {
            method: discovery(method) for method in DISCOVERY_METHODS
        }
        streams[f"/{CSDS}/StreamClientStatus"] = lambda context: self._guard(context, csds.stream(context))
        if self._hds is not None:
            health = HealthParts(
                clock=self._parts.clock,
                admission=self._parts.admission,
                observer=self._observer,
                writes=self._parts.writes,
                health=self._hds,
            )
            streams[f"/{HDS}/StreamHealthCheck"] = lambda context: self._serve(context, HealthSession(health, context))

        async def fetch(request: bytes, context: Any) -> bytes:
            return await self._guard(context, csds.fetch(request, context))

        return Methods(streams, {f"/{CSDS}/FetchClientStatus": fetch})

    async def _serve(self, context: Any, session: Session | HealthSession) -> None:
        """Run one session to its end and give the stream its status. Errors end this stream and no other (XP-113)."""
        self._streams.add(session)
        self._ages.opened(context.peer())
        try:
            if self._parts.admission.stopping:
                session.end(STOPPING)
            await self._guard(context, session.run(), session)
        finally:
            self._streams.discard(session)
            if not self._streams:
                self._deserted.set()

    def _end_aged(self, peer: str) -> None:
        for session in [session for session in self._streams if session.peer == peer]:
            session.end(AGED, gently=True)

    async def _guard(self, context: Any, work: Awaitable[_T], session: Session | HealthSession | None = None) -> _T:
        """Turn whatever `work` raises into the status of its call."""
        self._connections.spoke(context.peer())
        try:
            return await work
        except End as end:
            await self._abort(context, end.code, end.text)
        except grpc.aio.InternalError as error:  # an operation of the core failed: the client has just gone
            raise asyncio.CancelledError("the client is gone") from error
        except Exception as error:  # noqa: BLE001  # the last line before gRPC's own, which tells the client too much
            identity = session.identity if session is not None else None
            self._observer.count("failed")
            self._observer.log(
                "error",
                "a stream failed",
                node=identity.node_id if identity else "",
                peer=context.peer(),
                exc_info=error,
            )
            await self._abort(context, "INTERNAL", INTERNAL_TEXT)

    @staticmethod
    async def _abort(context: Any, code: str, text: str) -> NoReturn:
        try:
            async with asyncio.timeout(ABORT_S):
                await context.abort(grpc.StatusCode[code], _told(text))
        except (TimeoutError, grpc.aio.InternalError) as error:
            # nobody is there to be told, or nobody reads: gRPC logs every other end than a cancelled one as a failure
            raise asyncio.CancelledError(text) from error
        raise AssertionError("abort returns by raising")

    async def _drain(self, drain_s: float) -> None:
        """End the open streams one by one, at a pace that their number decides, with pauses only in between."""
        waiting = list(self._streams)
        random.shuffle(waiting)
        waiting.sort(key=lambda session: session.responses == 0)
        longest_s = min(drain_s / max(1, len(waiting)), LONGEST_PAUSE_S)
        for number, session in enumerate(waiting):
            if number and self._streams:
                await self._pause(longest_s * random.uniform(0.5, 1.0))  # noqa: S311  # jitter, not a secret
            if session in self._streams:
                session.end(STOPPING, gently=True)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not for nobody: the last stream that goes ends it."""
        self._deserted.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._deserted.wait()

    # -- the rest

    def _credentials(self, tls: Callable[[], TlsPair]) -> Any:
        self._presented = tls()

        def next_pair() -> Any:
            """Asked by gRPC at each handshake; None keeps what is presented."""
            self._connections.handshake_begun()
            pair = tls()
            if pair == self._presented:
                return None
            self._presented = pair
            return grpc.ssl_server_certificate_configuration([tuple(pair)])

        first = grpc.ssl_server_certificate_configuration([tuple(self._presented)])
        return grpc.dynamic_ssl_server_credentials(first, next_pair)

    def _log_large(self, type_url: str, proxies: int) -> None:
        self._observer.log(
            "warning",
            "responses are large: outbounds that name what a proxy needs keep them small",
            type_url=type_url,
            proxies_beyond=proxies - 1,
            larger_than_bytes=LARGE_BYTES,
        )

    def _log_silent(self, count: int) -> None:
        self._observer.log(
            "warning",
            "connections to the ADS port were closed before they opened a stream: plain text, half open, or not gRPC",
            connections=count,
        )


def _told(text: str) -> str:
    data = text.encode(errors="replace")
    return text if len(data) <= LONGEST_TEXT_BYTES else data[:LONGEST_TEXT_BYTES].decode(errors="ignore") + " …"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
