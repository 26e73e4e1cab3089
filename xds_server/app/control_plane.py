"""One control plane: its parts, the order in which they start, and the reverse in which they stop."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Coroutine
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog
from starlette.types import ASGIApp

from snapshot.engine.engine import Engine
from snapshot.registry import descriptor
from snapshot.stream.limits import Limits
from snapshot.topology.proxy import Settings
from xds_server.ads.hds import CheckDefaults, HealthDiscovery
from xds_server.ads.health_writer import HealthWriter
from xds_server.ads.ports import TlsPair as AdsTlsPair
from xds_server.ads.server import AddressInUse, AdsServer
from xds_server.ads.settings import AdsSettings
from xds_server.api.app import api_app
from xds_server.api.parts import ApiParts, Identity
from xds_server.api.serve import ServeError, Server
from xds_server.app.certificate import Certificate
from xds_server.app.issues import IssueLog
from xds_server.app.observer import StreamObserver
from xds_server.app.streams import StreamAuthenticator, StreamRegistrar, WatchedDataplanes
from xds_server.bootstrap.app import bootstrap_app
from xds_server.bootstrap.first_start import FirstStart, ensure_defaults
from xds_server.bootstrap.generator import BootstrapGenerator
from xds_server.certs.pair import CertificateError, TlsPair, control_plane_pair, load_pair
from xds_server.clock import SystemClock
from xds_server.config import Config, ConfigError
from xds_server.diagnostics import count_resources, diagnostics_app
from xds_server.insights import Insights
from xds_server.reconciler import Push, Reconciler
from xds_server.registration import Patience, Registrar
from xds_server.resolver import Resolver
from xds_server.store import MemoryStore, ResourceStore, SqlStore, StoreError, StoreUnusable
from xds_server.telemetry import Telemetry
from xds_server.tokens.authority import Authority
from xds_server.tokens.keys import KeyRing

EVERYWHERE = "0.0.0.0"  # noqa: S104  # Kuma's servers for proxies listen on all addresses

_log = structlog.get_logger(__name__)


class StartError(Exception):
    """The control plane cannot start; the text says what to change."""


class Core(NamedTuple):
    """What the servers have in common."""

    store: ResourceStore
    authority: Authority
    reconciler: Reconciler
    registrar: Registrar
    certificate: Certificate


class ControlPlane:
    """Start it once, stop it once; `stop` undoes whatever has been started, in reverse."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._clock = SystemClock()
        self._stack = contextlib.AsyncExitStack()
        self._not_ready: str | None = "starting"
        self._issues: IssueLog | None = None
        self._hostname = socket.gethostname()
        self.instance_id = f"{self._hostname}-{secrets.token_hex(2)}"
        self.telemetry = Telemetry(config.multizone.zone.name)

    async def start(self) -> None:
        """Return when proxies and users are served. Raises StartError."""
        try:
            await self._start()
        except (StoreError, CertificateError, ServeError, AddressInUse, ConfigError, OSError) as error:
            raise StartError(str(error)) from error
        self._not_ready = None

    async def stop(self) -> None:
        """Drain the streams, finish what was accepted, let go of everything."""
        self._not_ready = "stopping"
        await self._stack.aclose()

    async def _start(self) -> None:
        config, clock = self._config, self._clock
        await self._serve_http(
            self._http_server(diagnostics_app(self.telemetry, lambda: self._not_ready), "diagnostics.serverPort"),
            EVERYWHERE,
            config.diagnostics.server_port,
            "diagnostics",
        )
        certificate = await self._certificate(config.dp_server.tls_cert_file, config.dp_server.tls_key_file)
        store = await self._open_store()
        self._stack.push_async_callback(store.close)
        ring = KeyRing(store)
        authority = Authority(ring, clock, certificate.pair.pin)
        first = await ensure_defaults(
            store,
            authority,
            clock,
            config.work_dir,
            default_mesh=not config.defaults.skip_mesh_creation,
            admin_token=config.api_server.authn.tokens.bootstrap_admin_token,
        )
        self._tell(first, certificate)
        self._task(ring.follow(), "signing-keys")
        self._task(self.telemetry.watch_loop(), "loop-lag")
        self._task(count_resources(self.telemetry, store, clock), "resources-count")

        reconciler = await self._start_reconciler(store, first)
        insights = Insights(
            store,
            clock,
            instance_id=self.instance_id,
            subscription_limit=config.metrics.dataplane.subscription_limit,
        )
        await insights.start()
        self._stack.push_async_callback(insights.stop)
        registrar = await self._start_registrar(store, reconciler)
        core = Core(store, authority, reconciler, registrar, certificate)
        xds_port = await self._start_ads(core, insights)
        identity = Identity(self._hostname, self.instance_id, first.cluster_id, version("koguma"))
        self.telemetry.info(self.instance_id, first.cluster_id, version("koguma"))
        self.telemetry.leader(leads=True)
        await self._start_dp_server(core, xds_port)
        await self._start_api(core, identity)

    # -- the store and what follows it

    async def _open_store(self) -> ResourceStore:
        observer = self.telemetry.store_operation
        if self._config.store.type == "memory":
            _log.warning("store.type is memory: everything is lost when the control plane ends")
            return MemoryStore(self._clock, observer=observer)
        try:
            return await SqlStore.open(self._config.work_dir, self._clock, observer=observer)
        except StoreUnusable as error:
            raise StartError(str(error)) from error

    async def _start_reconciler(self, store: ResourceStore, first: FirstStart) -> Reconciler:
        pair = first.admin_listener
        engine = Engine(
            Settings(
                zone=self._config.multizone.zone.name,
                admin_cert_pem=pair.cert_pem,
                admin_key_pem=pair.key_pem,
                resource_bytes=self._config.xds_server.limits.resource_size,
            )
        )
        names = Resolver(self._clock, ttl_s=self._config.general.dns_cache_ttl)
        reconciler = Reconciler(store, engine, names, self._clock, observer=self._pushed)
        self._issues = IssueLog(reconciler.issues, self.telemetry.issues)
        self._stack.callback(self._issues.stop)
        await reconciler.start()
        self._stack.push_async_callback(reconciler.stop)
        self.telemetry.watch_queue("changes", lambda: reconciler.waiting[0])
        self.telemetry.watch_queue("nodes", lambda: reconciler.waiting[1])
        return reconciler

    def _pushed(self, push: Push) -> None:
        self.telemetry.built(push.build_s)
        self.telemetry.xds.generated(push.build_s)
        if push.publication is None or push.publication.failures:
            self.telemetry.xds.generation_failed()
        if self._issues is not None:
            self._issues.built()

    async def _start_registrar(self, store: ResourceStore, reconciler: Reconciler) -> Registrar:
        config = self._config
        registrar = Registrar(
            store,
            reconciler.watch,
            self._clock,
            instance_id=self.instance_id,
            validate=descriptor("Dataplane").validate,
            zone=config.multizone.zone.name,
            patience=Patience(
                leave_grace_s=config.xds_server.leave_grace,
                cleanup_age_s=config.runtime.universal.dataplane_cleanup_age,
            ),
        )
        await registrar.start()
        self._stack.push_async_callback(registrar.stop)
        return registrar

    # -- gRPC

    async def _start_ads(self, core: Core, insights: Insights) -> int:
        """Serve ADS; its port."""
        config, certificate = self._config, core.certificate
        observer = StreamObserver(self.telemetry, insights)
        server = AdsServer(
            self._ads_settings(),
            tls=lambda: AdsTlsPair(certificate.pair.key_pem, certificate.pair.cert_pem),
            clock=self._clock,
            authenticator=StreamAuthenticator(core.authority, core.reconciler, required=config.dp_auth),
            registrar=StreamRegistrar(core.registrar),
            nodes=core.reconciler,
            limits=Limits(names=config.xds_server.limits.names_per_request),
            observer=observer,
            hds=self._health_discovery(core, observer),
            dataplanes=WatchedDataplanes(core.reconciler),
        )
        port = await server.start(EVERYWHERE, config.xds_server.port)
        self._stack.push_async_callback(server.stop)
        _log.info("listening", server="xds", port=port)
        return port

    def _health_discovery(self, core: Core, observer: StreamObserver) -> HealthDiscovery | None:
        hds = self._config.dp_server.hds
        if not hds.enabled:
            return None
        dataplanes = WatchedDataplanes(core.reconciler)
        writer = HealthWriter(core.store, dataplanes, observer, self._clock, core.registrar.epoch)
        writer.start()
        self._stack.push_async_callback(writer.stop)
        checks = hds.check_defaults
        return HealthDiscovery(
            dataplanes=dataplanes,
            sink=writer,
            metrics=self.telemetry.hds,
            interval_s=hds.interval,
            defaults=CheckDefaults(
                timeout_s=checks.timeout,
                interval_s=checks.interval,
                no_traffic_interval_s=checks.no_traffic_interval,
                healthy_threshold=checks.healthy_threshold,
                unhealthy_threshold=checks.unhealthy_threshold,
            ),
        )

    def _ads_settings(self) -> AdsSettings:
        xds = self._config.xds_server
        return AdsSettings(
            identifier=self.instance_id,
            keepalive_s=xds.keepalive.interval,
            ping_timeout_s=xds.keepalive.timeout,
            max_message_bytes=xds.limits.message_size,
            streams_per_proxy=xds.limits.streams_per_proxy,
            requests_per_s=xds.limits.requests_per_second,
            connections_per_address=xds.limits.connections_per_address,
            drain_s=xds.drain_time,
            max_connection_age_s=xds.max_connection_age,
        )

    # -- HTTP

    async def _start_dp_server(self, core: Core, xds_port: int) -> None:
        config, certificate = self._config, core.certificate
        bound = msgspec.structs.replace(config.xds_server, port=xds_port)
        generator = BootstrapGenerator(
            msgspec.structs.replace(config, xds_server=bound),
            core.store,
            core.authority,
            certificate.pair,
            core.registrar.taken,
        )
        app = bootstrap_app(generator, self.telemetry.dp)
        server = self._http_server(app, "dpServer.port", certificate.pair)
        await self._serve_http(server, EVERYWHERE, config.dp_server.port, "dp")
        certificate.subscribe(server.reload)
        certificate.subscribe(lambda renewed: setattr(generator, "tls", renewed))

    async def _start_api(self, core: Core, identity: Identity) -> None:
        parts = ApiParts(
            config=self._config,
            store=core.store,
            authority=core.authority,
            clock=self._clock,
            telemetry=self.telemetry,
            identity=identity,
            client_cert=core.certificate.pair.cert_file,
            client_key=core.certificate.pair.key_file,
            issues=core.reconciler.issues,
            admin_port=lambda proxy: node.admin_port if (node := core.reconciler.node(proxy)) else None,
        )
        app, api = api_app(parts), self._config.api_server
        if api.http.enabled:
            await self._serve_http(
                self._http_server(app, "apiServer.http.port"), api.http.interface, api.http.port, "api"
            )
        if api.https.enabled:
            own = await self._certificate(api.https.tls_cert_file, api.https.tls_key_file)
            server = self._http_server(app, "apiServer.https.port", own.pair)
            await self._serve_http(server, api.https.interface, api.https.port, "api over TLS")
            own.subscribe(server.reload)

    def _http_server(self, app: ASGIApp, setting: str, tls: TlsPair | None = None) -> Server:
        silent = partial(self.telemetry.stream_event, "silent_connections")
        return Server(app, setting, tls, self.telemetry.plaintext_on_tls, silent)

    async def _serve_http(self, server: Server, host: str, port: int, name: str) -> None:
        bound = await server.start(host, port)
        self._stack.push_async_callback(server.stop)
        _log.info("listening", server=name, port=bound)

    # -- the rest

    async def _certificate(self, cert_file: str, key_file: str) -> Certificate:
        """The certificate of one server, followed: its own, else the general one. Raises CertificateError."""
        if cert_file:
            pair = await asyncio.to_thread(_own_pair, cert_file, key_file)
        else:
            general = self._config.general
            files = (general.tls_cert_file, general.tls_key_file)
            pair = await asyncio.to_thread(control_plane_pair, self._config.work_dir, *files, self._clock.now())
        certificate = Certificate(pair, self._clock)
        self._task(certificate.follow(), "certificate")
        return certificate

    def _tell(self, first: FirstStart, certificate: Certificate) -> None:
        """Where things are, for whoever started it."""
        work_dir = self._config.work_dir
        if first.created:
            _log.info("first start: created what was missing", created=list(first.created))
        _log.info(
            "state",
            data_dir=str(work_dir),
            certificate=str(certificate.pair.cert_file),
            certificate_pin=certificate.pair.pin,
            admin_token=str(first.admin_token_file) if first.admin_token_file else None,
        )

    def _task(self, work: Coroutine[None, None, None], name: str) -> None:
        """Run `work` as long as the control plane runs; should it fail, say so."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_report)

        async def end() -> None:
            task.cancel()
            await asyncio.wait((task,))

        self._stack.push_async_callback(end)


def _own_pair(cert_file: str, key_file: str) -> TlsPair:
    return load_pair(Path(cert_file).expanduser(), Path(key_file).expanduser())


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a background task failed", task=task.get_name(), exc_info=error)
