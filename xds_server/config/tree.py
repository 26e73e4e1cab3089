"""The settings that have an effect, as a frozen tree; field names in camelCase are the keys of the file (R §6.2).

Each leaf may carry a `Rule`. Keys of Kuma that cannot apply here are in `inapplicable.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NewType

import msgspec

Seconds = NewType("Seconds", float)
"""A duration setting; written in Go's syntax (`1h30m`)."""

ADMIN = "mesh-system:admin"
AUTHENTICATED = "mesh-system:authenticated"
UNAUTHENTICATED = "mesh-system:unauthenticated"
HOSTNAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class Rule(msgspec.Struct, frozen=True):
    """What a leaf accepts, and how it is called in the environment where that is not its path in capitals."""

    allowed: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    ip: bool = False
    hostname: bool = False
    env: tuple[str, ...] = ()


Port = Annotated[int, Rule(low=0, high=65535)]
Positive = Annotated[Seconds, Rule(low=1e-9)]
NotNegative = Annotated[Seconds, Rule(low=0)]
Count = Annotated[int, Rule(low=1)]


class Node(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of every branch."""


class Store(Node, frozen=True, kw_only=True):
    """Where resources lie: a SQLite file in the work directory, or memory."""

    type: Annotated[str, Rule(allowed=("sqlite", "memory"), unsupported=("postgres", "kubernetes"))] = "sqlite"


class BootstrapParams(Node, frozen=True, kw_only=True):
    """What Envoy's bootstrap says. `xds_host` "" is the address that kuma-dp came to; `xds_port` 0 is ours."""

    admin_address: Annotated[str, Rule(ip=True)] = "127.0.0.1"
    admin_port: Port = 9901
    admin_access_log_path: str = "/dev/null"
    xds_host: str = ""
    xds_port: Port = 0
    xds_connect_timeout: Positive = Seconds(1.0)
    xds_protocol: Annotated[str, Rule(allowed=("delta", "sotw"))] = "delta"


class BootstrapServer(Node, frozen=True, kw_only=True):
    """Answers of `/bootstrap`."""

    params: BootstrapParams = BootstrapParams()


class Keepalive(Node, frozen=True, kw_only=True):
    """HTTP/2 pings that find dead clients."""

    interval: Positive = Seconds(30.0)
    timeout: Positive = Seconds(10.0)


class XdsLimits(Node, frozen=True, kw_only=True):
    """Bounds on what one client may ask for. `connections_per_address` does not count on loopback."""

    message_size: Annotated[int, Rule(low=64 * 1024)] = 64 * 1024 * 1024
    resource_size: Annotated[int, Rule(low=64 * 1024)] = 32 * 1024 * 1024
    names_per_request: Count = 100_000
    streams_per_proxy: Count = 4096
    requests_per_second: Count = 100
    connections_per_address: Count = 20_000


class XdsServer(Node, frozen=True, kw_only=True):
    """ADS. `leave_grace`: how long a proxy that left may take to come back before it is deleted.

    `max_connection_age`: after this time, a tenth more or less, a proxy is asked to connect anew; 0 is never.
    """

    port: Port = 5677
    drain_time: NotNegative = Seconds(10.0)
    leave_grace: NotNegative = Seconds(2.0)
    max_connection_age: NotNegative = Seconds(0.0)
    keepalive: Keepalive = Keepalive()
    limits: XdsLimits = XdsLimits()


class ApiHttp(Node, frozen=True, kw_only=True):
    """The plain listener."""

    enabled: bool = True
    interface: Annotated[str, Rule(ip=True)] = "0.0.0.0"  # noqa: S104  # Kuma's default
    port: Port = 5681


class ApiHttps(Node, frozen=True, kw_only=True):
    """The TLS listener; without files of its own it uses the control plane's pair."""

    enabled: bool = True
    interface: Annotated[str, Rule(ip=True)] = "0.0.0.0"  # noqa: S104  # Kuma's default
    port: Port = 5682
    tls_cert_file: str = ""
    tls_key_file: str = ""


class AuthnTokens(Node, frozen=True, kw_only=True):
    """User tokens."""

    bootstrap_admin_token: bool = True


class Authn(Node, frozen=True, kw_only=True):
    """Who a caller is."""

    type: Annotated[str, Rule(allowed=("tokens",), unsupported=("adminClientCerts",))] = "tokens"
    localhost_is_admin: bool = True
    tokens: AuthnTokens = AuthnTokens()


class ApiServer(Node, frozen=True, kw_only=True):
    """REST. `body_limit` is in bytes."""

    http: ApiHttp = ApiHttp()
    https: ApiHttps = ApiHttps()
    authn: Authn = Authn()
    read_only: bool = False
    cors_allowed_domains: tuple[str, ...] = (".*",)
    body_limit: Annotated[int, Rule(low=1024)] = 4 * 1024 * 1024


class UniversalRuntime(Node, frozen=True, kw_only=True):
    """`dataplane_cleanup_age`: when an offline proxy is deleted."""

    dataplane_cleanup_age: Positive = Seconds(72 * 3600.0)


class Runtime(Node, frozen=True, kw_only=True):
    """What depends on the environment."""

    universal: UniversalRuntime = UniversalRuntime()


class Defaults(Node, frozen=True, kw_only=True):
    """What the first start creates."""

    skip_mesh_creation: bool = False


class DataplaneMetrics(Node, frozen=True, kw_only=True):
    """How many subscriptions an insight keeps."""

    subscription_limit: Annotated[int, Rule(low=0)] = 2


class Metrics(Node, frozen=True, kw_only=True):
    """Insights."""

    dataplane: DataplaneMetrics = DataplaneMetrics()


class General(Node, frozen=True, kw_only=True):
    """`work_dir` holds all state; "" is `~/.kuma`. `dns_cache_ttl`: how often domain names are resolved again."""

    dns_cache_ttl: Annotated[Seconds, Rule(low=1e-9)] = msgspec.field(default=Seconds(10.0), name="dnsCacheTTL")
    tls_cert_file: str = ""
    tls_key_file: str = ""
    work_dir: str = ""
    log_level: Annotated[str, Rule(allowed=("off", "error", "warning", "info", "debug"))] = "info"
    log_format: Annotated[str, Rule(allowed=("console", "json"))] = "console"


class Zone(Node, frozen=True, kw_only=True):
    """`name` is written into the tag `kuma.io/zone` of every Dataplane; "" writes none."""

    name: Annotated[str, Rule(hostname=True)] = ""


class Multizone(Node, frozen=True, kw_only=True):
    """What of several zones a single one can have."""

    zone: Zone = Zone()


class Diagnostics(Node, frozen=True, kw_only=True):
    """`/ready`, `/healthy`, `/metrics`."""

    server_port: Port = 5680


class DpAuth(Node, frozen=True, kw_only=True):
    """How proxies prove who they are; "" is dpToken."""

    type: Annotated[str, Rule(allowed=("", "dpToken", "none"), unsupported=("serviceAccountToken",))] = ""


class HdsCheck(Node, frozen=True, kw_only=True):
    """What a `serviceProbe` does not say."""

    timeout: Annotated[Seconds, Rule(low=1e-9, env=("KUMA_DP_SERVER_HDS_CHECK_TIMEOUT",))] = Seconds(2.0)
    interval: Annotated[Seconds, Rule(low=1e-9, env=("KUMA_DP_SERVER_HDS_CHECK_INTERVAL",))] = Seconds(1.0)
    no_traffic_interval: Annotated[Seconds, Rule(low=1e-9, env=("KUMA_DP_SERVER_HDS_CHECK_NO_TRAFFIC_INTERVAL",))] = (
        Seconds(1.0)
    )
    healthy_threshold: Annotated[int, Rule(low=1, env=("KUMA_DP_SERVER_HDS_CHECK_HEALTHY_THRESHOLD",))] = 1
    unhealthy_threshold: Annotated[int, Rule(low=1, env=("KUMA_DP_SERVER_HDS_CHECK_UNHEALTHY_THRESHOLD",))] = 1


class Hds(Node, frozen=True, kw_only=True):
    """Health discovery; `interval` is how often Envoy reports."""

    enabled: bool = True
    interval: Positive = Seconds(5.0)
    check_defaults: HdsCheck = HdsCheck()


class DpServer(Node, frozen=True, kw_only=True):
    """`/bootstrap` over HTTPS."""

    port: Port = 5678
    tls_cert_file: str = ""
    tls_key_file: str = ""
    auth: DpAuth = DpAuth()
    hds: Hds = Hds()


class Grant(Node, frozen=True, kw_only=True):
    """Users and groups that may do something."""

    users: tuple[str, ...] = (ADMIN,)
    groups: tuple[str, ...] = (ADMIN,)


class ViewConfigDump(Node, frozen=True, kw_only=True):
    """As `Grant`, for configuration dumps."""

    users: Annotated[tuple[str, ...], Rule(env=("KUMA_ACCESS_STATIC_GET_CONFIG_DUMP_USERS",))] = ()
    groups: Annotated[tuple[str, ...], Rule(env=("KUMA_ACCESS_STATIC_GET_CONFIG_DUMP_GROUPS",))] = (
        UNAUTHENTICATED,
        AUTHENTICATED,
    )


class StaticAccess(Node, frozen=True, kw_only=True):
    """Who may do what. `write_resources`: change resources that are not secrets."""

    admin_resources: Grant = Grant()
    generate_dp_token: Grant = Grant()
    generate_user_token: Grant = Grant()
    view_config_dump: ViewConfigDump = ViewConfigDump()
    write_resources: Grant = Grant()


class Access(Node, frozen=True, kw_only=True):
    """Authorisation."""

    type: Annotated[str, Rule(allowed=("static",))] = "static"
    static: StaticAccess = StaticAccess()


class Config(Node, frozen=True, kw_only=True):
    """All settings. `inapplicable` are Kuma's keys without effect here, by path, as they are shown."""

    environment: Annotated[str, Rule(allowed=("universal",), unsupported=("kubernetes",))] = "universal"
    mode: Annotated[str, Rule(allowed=("standalone",), unsupported=("zone", "global"))] = "standalone"
    store: Store = Store()
    bootstrap_server: BootstrapServer = BootstrapServer()
    xds_server: XdsServer = XdsServer()
    api_server: ApiServer = ApiServer()
    runtime: Runtime = Runtime()
    defaults: Defaults = Defaults()
    metrics: Metrics = Metrics()
    general: General = General()
    multizone: Multizone = Multizone()
    diagnostics: Diagnostics = Diagnostics()
    dp_server: DpServer = DpServer()
    access: Access = Access()
    inapplicable: Mapping[str, Any] = msgspec.field(default_factory=dict)

    @property
    def work_dir(self) -> Path:
        """The directory that holds all state."""
        return Path(self.general.work_dir).expanduser() if self.general.work_dir else Path.home() / ".kuma"

    @property
    def xds_port(self) -> int:
        """The port that bootstraps send Envoy to."""
        return self.bootstrap_server.params.xds_port or self.xds_server.port

    @property
    def dp_auth(self) -> bool:
        """Whether proxies need a token."""
        return self.dp_server.auth.type != "none"
