"""What `kuma-dp run` is told: flags, then environment variables over them (Kuma's order, R §8.1), as one frozen value.

Never here: reading files or the network.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from xds_server.dp.errors import StartError
from xds_server.dp.go_syntax import duration_s, variables


class Flag(NamedTuple):
    """One setting: its flags ("" for environment only), its variable ("" for a flag only), default and help."""

    field: str
    flags: tuple[str, ...]
    variable: str
    default: str
    help: str
    metavar: str = "TEXT"


FLAGS = (
    Flag(
        "cp_address",
        ("--cp-address",),
        "KUMA_CONTROL_PLANE_URL",
        "https://localhost:5678",
        "URL of the control plane's DP server",
        "URL",
    ),
    Flag(
        "ca_cert_file",
        ("--ca-cert-file",),
        "KUMA_CONTROL_PLANE_CA_CERT_FILE",
        "",
        "PEM certificate that the control plane's must chain to",
        "FILE",
    ),
    Flag("ca_cert", (), "KUMA_CONTROL_PLANE_CA_CERT", "", "the same as text; wins over the file"),
    Flag("retry_backoff", (), "KUMA_CONTROL_PLANE_RETRY_BACKOFF", "3s", "pause between attempts", "DURATION"),
    Flag("retry_max_duration", (), "KUMA_CONTROL_PLANE_RETRY_MAX_DURATION", "5m", "when to give up", "DURATION"),
    Flag("mesh", ("--mesh",), "KUMA_DATAPLANE_MESH", "", "mesh of a Dataplane that the control plane already stores"),
    Flag("name", ("--name",), "KUMA_DATAPLANE_NAME", "", "name of a Dataplane that the control plane already stores"),
    Flag("proxy_type", ("--proxy-type",), "KUMA_DATAPLANE_PROXY_TYPE", "dataplane", "kind of proxy: dataplane"),
    Flag(
        "admin_port",
        ("--admin-port",),
        "KUMA_DATAPLANE_ADMIN_PORT",
        "",
        "port of Envoy's admin, or a range to find a free one in: 9901, 9901-9999, 9901-, -9901 "
        "(networking.admin.port of the Dataplane is the newer way)",
        "PORT|RANGE",
    ),
    Flag("drain_time", (), "KUMA_DATAPLANE_DRAIN_TIME", "30s", "how long removed listeners drain", "DURATION"),
    Flag("dataplane", ("--dataplane",), "KUMA_DATAPLANE_RUNTIME_RESOURCE", "", "the Dataplane as YAML or JSON"),
    Flag(
        "dataplane_file",
        ("-d", "--dataplane-file"),
        "KUMA_DATAPLANE_RUNTIME_RESOURCE_PATH",
        "",
        "file with the Dataplane, - for stdin; wins over --dataplane",
        "FILE",
    ),
    Flag("token", ("--dataplane-token",), "KUMA_DATAPLANE_RUNTIME_TOKEN", "", "the token itself (prefer the file)"),
    Flag(
        "token_file",
        ("--dataplane-token-file",),
        "KUMA_DATAPLANE_RUNTIME_TOKEN_PATH",
        "",
        "file with the token of `kumactl generate dataplane-token`",
        "FILE",
    ),
    Flag(
        "binary_path",
        ("--binary-path",),
        "KUMA_DATAPLANE_RUNTIME_BINARY_PATH",
        "",
        "Envoy; default: the one of the [envoy] extra, else `envoy` on PATH",
        "FILE",
    ),
    Flag(
        "config_dir",
        ("--config-dir",),
        "KUMA_DATAPLANE_RUNTIME_CONFIG_DIR",
        "",
        "write the bootstrap there instead of keeping it in memory",
        "DIR",
    ),
    Flag(
        "concurrency",
        ("--concurrency",),
        "KUMA_DATAPLANE_RUNTIME_CONCURRENCY",
        "0",
        "Envoy's worker threads; 0: as many as the CPU set allows",
        "N",
    ),
    Flag("log_level", ("--log-level",), "", "info", "level of Envoy's log", "LEVEL"),
    Flag(
        "xds_protocol",
        ("--xds-protocol",),
        "",
        "",
        "delta or sotw; default: as the control plane is configured",
        "delta|sotw",
    ),
    Flag("dns_enabled", ("--dns-enabled",), "KUMA_DNS_ENABLED", "true", "DNS of transparent proxying", "true|false"),
    Flag("dns_envoy_port", ("--dns-envoy-port",), "KUMA_DNS_ENVOY_DNS_PORT", "15054", "port of Envoy's DNS", "PORT"),
    Flag(
        "dns_empty_port",
        ("--dns-coredns-empty-port",),
        "KUMA_DNS_CORE_DNS_EMPTY_PORT",
        "15055",
        "port of the DNS that answers nothing",
        "PORT",
    ),
)
"""Every setting with an effect."""

WITHOUT_EFFECT = {
    "--dns-coredns-port": "KUMA_DNS_CORE_DNS_PORT",
    "--dns-prometheus-port": "KUMA_DNS_PROMETHEUS_PORT",
    "--dns-coredns-path": "KUMA_DNS_CORE_DNS_BINARY_PATH",
    "--dns-coredns-config-template-path": "KUMA_DNS_CORE_DNS_CONFIG_TEMPLATE_PATH",
    "--dns-server-config-dir": "KUMA_DNS_CONFIG_DIR",
    "--bootstrap-version": "",
}
"""Kuma's settings of a DNS server that serves transparent proxying only, and one that Kuma ignores too: each is
accepted, and answered with a notice."""

LOG_LEVELS = ("trace", "debug", "info", "warning", "warn", "error", "critical", "off")
ZONE_PROXIES = ("ingress", "egress")
_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The settings of one `kuma-dp run`, checked. Empty text: not given. `notices` are to be said once."""

    cp_address: str
    ca_cert_file: str
    ca_cert: str
    retry_backoff_s: float
    retry_max_duration_s: float
    mesh: str
    name: str
    admin_port: str
    drain_time_s: int
    dataplane: str
    dataplane_file: str
    variables: Mapping[str, str]
    token: str
    token_file: str
    binary_path: str
    config_dir: str
    concurrency: int
    log_level: str
    xds_protocol: str
    dns_enabled: bool
    dns_envoy_port: int
    dns_empty_port: int
    skip_verify: bool
    notices: tuple[str, ...]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Give the parser of `kuma-dp run` its flags."""
    for flag in FLAGS:
        if flag.flags:
            origin = [f"env {flag.variable}"] if flag.variable else []
            origin += [f"default {flag.default}"] if flag.default else []
            suffix = f" ({', '.join(origin)})" if origin else ""
            implied: dict[str, Any] = {"nargs": "?", "const": "true"} if flag.field == "dns_enabled" else {}
            parser.add_argument(
                *flag.flags,
                dest=flag.field,
                metavar=flag.metavar,
                help=(flag.help + suffix).replace("%", "%%"),
                **implied,
            )
    parser.add_argument(
        "-v",
        "--dataplane-var",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="value for {{ KEY }} in the Dataplane; may be repeated",
    )
    parser.add_argument("--skip-verify", action="store_true", help="do not verify the control plane's certificate")
    for name in WITHOUT_EFFECT:
        parser.add_argument(name, metavar="TEXT", help=argparse.SUPPRESS)
    parser.epilog = "Environment only: " + ", ".join(
        f"{flag.variable} (default {flag.default})" if flag.default else flag.variable
        for flag in FLAGS
        if not flag.flags
    )


def from_arguments(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Options:
    """The options of parsed flags under the environment. Raises StartError naming the setting and its value."""
    given = {
        flag.field: environ.get(flag.variable, "") or getattr(arguments, flag.field, None) or flag.default
        for flag in FLAGS
    }
    proxy_type = given.pop("proxy_type")
    _check_proxy_type(proxy_type)
    _one_of("--log-level", given["log_level"], LOG_LEVELS)
    _one_of("--xds-protocol", given["xds_protocol"], ("", "delta", "sotw"))
    _one_of("--dns-enabled", given["dns_enabled"], _TRUE + _FALSE)
    try:
        values = variables(arguments.dataplane_var)
    except ValueError as error:
        raise StartError(f"--dataplane-var: {error}") from error
    return Options(
        **{field: value for field, value in given.items() if field not in _TYPED},
        retry_backoff_s=_duration("KUMA_CONTROL_PLANE_RETRY_BACKOFF", given["retry_backoff"]),
        retry_max_duration_s=_duration("KUMA_CONTROL_PLANE_RETRY_MAX_DURATION", given["retry_max_duration"]),
        drain_time_s=round(_duration("KUMA_DATAPLANE_DRAIN_TIME", given["drain_time"])),
        concurrency=_whole("--concurrency", given["concurrency"], 2**31 - 1),
        dns_enabled=given["dns_enabled"] in _TRUE,
        dns_envoy_port=_whole("--dns-envoy-port", given["dns_envoy_port"], 65535),
        dns_empty_port=_whole("--dns-coredns-empty-port", given["dns_empty_port"], 65535),
        variables=values,
        skip_verify=arguments.skip_verify,
        notices=tuple(_notices(arguments, environ)),
    )


_TYPED = {
    "retry_backoff",
    "retry_max_duration",
    "drain_time",
    "concurrency",
    "dns_enabled",
    "dns_envoy_port",
    "dns_empty_port",
}


def _notices(arguments: argparse.Namespace, environ: Mapping[str, str]) -> list[str]:
    said = []
    for name, variable in WITHOUT_EFFECT.items():
        field = name.removeprefix("--").replace("-", "_")
        if getattr(arguments, field) is None and not environ.get(variable, ""):
            continue
        reason = (
            "the bootstrap is always of version 3"
            if name == "--bootstrap-version"
            else "no DNS server is run, because transparent proxying is not supported by this version"
        )
        said.append(f"{name} has no effect: {reason}")
    if arguments.admin_port or environ.get("KUMA_DATAPLANE_ADMIN_PORT"):
        said.append("--admin-port is deprecated; set networking.admin.port in the Dataplane")
    return said


def _check_proxy_type(value: str) -> None:
    if value in ZONE_PROXIES:
        raise StartError(f'proxy type "{value}" is not supported by this version; supported: dataplane')
    if value != "dataplane":
        raise StartError(f'invalid proxy type "{value}"')


def _one_of(flag: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise StartError(f"{flag} {value!r} must be one of {', '.join(one for one in allowed if one)}")


def _duration(setting: str, value: str) -> float:
    try:
        return duration_s(value)
    except ValueError as error:
        raise StartError(f"{setting}: {error}") from error


def _whole(setting: str, value: str, maximum: int) -> int:
    if not value.isdecimal() or not int(value) <= maximum:
        raise StartError(f"{setting} {value!r} must be a whole number from 0 to {maximum}")
    return int(value)
