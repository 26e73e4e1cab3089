"""The command `kuma-dp`. Read `start` for the order of things."""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from xds_server.dp import admin_port, launch
from xds_server.dp.bootstrap import KUMA_VERSION, Client, endpoint, patiently
from xds_server.dp.definition import Definition, definition
from xds_server.dp.envoy_binary import Build, VersionProbe, find
from xds_server.dp.errors import StartError
from xds_server.dp.options import Options, add_flags, from_arguments
from xds_server.dp.token import checked_token, claims, read_token
from xds_server.dp.trust import trust_for

INTERRUPTED = 130
EXAMPLES = """\
Start one proxy: fetch its bootstrap from the control plane, and become Envoy.

  kumactl generate dataplane-token --name web-1 > web-1.token
  kuma-dp run --dataplane-file dp.yaml -v name=web-1 -v address=10.0.0.5 --dataplane-token-file web-1.token
  kuma-dp run --cp-address https://cp.example:5678 --ca-cert-file ca.pem --dataplane-file dp.yaml \\
    --dataplane-token-file web-1.token

Environment variables override flags."""


def _say(text: str) -> None:
    print(f"kuma-dp: {text}", file=sys.stderr, flush=True)  # noqa: T201  # the user's terminal


def own_version() -> str:
    """Version of the installed distribution."""
    from importlib.metadata import version  # noqa: PLC0415  # only some paths need it

    return version("koguma")


def request(options: Options, proxy: Definition, token: str, build: Build) -> dict[str, Any]:
    """The body of the bootstrap request (R §7.2), with the keys that only our control plane reads at the end."""
    run_id = str(uuid.uuid4())
    gateway_to_dns = {"dnsPort": options.dns_envoy_port, "emptyDnsPort": options.dns_empty_port}
    kuma_dp = {"version": KUMA_VERSION, "gitTag": f"koguma-{own_version()}", "gitCommit": "", "buildDate": ""}
    return {
        "mesh": proxy.mesh,
        "name": proxy.name,
        "proxyType": "dataplane",
        "dataplaneToken": token,
        "dataplaneResource": proxy.resource_json(),
        "version": {"kumaDp": kuma_dp, "envoy": {"version": build.version, "build": build.build}},
        "caCert": "",
        "dynamicMetadata": {"koguma.helpers": "none", "koguma.runId": run_id},
        "bootstrapVersion": "3",
        **(gateway_to_dns if options.dns_enabled else {}),
        "runId": run_id,
        **({"xdsProtocol": options.xds_protocol} if options.xds_protocol else {}),
    }


def start(options: Options, environ: Mapping[str, str]) -> NoReturn:
    """Check everything that can be checked here, fetch the bootstrap, become Envoy. Raises StartError."""
    for notice in options.notices:
        _say(notice)
    proxy = definition(options)
    for notice in proxy.notices:
        _say(notice)
    token = _token(options)
    target = endpoint(options.cp_address)
    probe = VersionProbe(find(options.binary_path))
    trust = trust_for(options, claims(token) if token else {}, (target.host, target.port), environ)
    client = Client(target, trust, _say)
    claimed = admin_port.Claims(proxy.address(), proxy.listening_ports())
    build = probe.result()
    body = request(options, proxy, token, build)
    body["caCert"] = getattr(trust, "pem", "")
    if port := _wanted_admin_port(options, proxy, claimed):
        body["adminPort"] = port

    def ask() -> str:
        return patiently(lambda: client.fetch(body), options.retry_backoff_s, options.retry_max_duration_s, _say)

    text = ask()
    bootstrap = launch.bootstrap_document(text)
    chosen = launch.admin_port(bootstrap)
    if not proxy.admin_port() and chosen and "adminPort" not in body and not claimed.claim(chosen):
        body["adminPort"] = claimed.any_free()
        text = ask()
        bootstrap = launch.bootstrap_document(text)
    claimed.keep_only(launch.admin_port(bootstrap))
    if launch.expects_helpers(bootstrap):
        _say(
            "this control plane counts on Kuma's helper processes: access logs to TCP and merged metrics will not work"
        )
    path = launch.config_path(text, bootstrap, options.config_dir)
    _say(f"starting Envoy for {proxy.mesh}.{proxy.name}, admin on port {launch.admin_port(bootstrap) or 'none'}")
    launch.become(launch.arguments(probe.binary, path, options, build), environ)


def _wanted_admin_port(options: Options, proxy: Definition, claimed: admin_port.Claims) -> int:
    """The port to ask for, 0 to take the control plane's: it has the last word where the Dataplane names one."""
    if proxy.admin_port():
        return 0
    if options.admin_port:
        return claimed.first_of(options.admin_port)
    return 0 if claimed.claim(admin_port.DEFAULT) else claimed.any_free()


def _token(options: Options) -> str:
    if options.token_file:
        return read_token(options.token_file)
    return checked_token(options.token.strip(), "--dataplane-token") if options.token else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kuma-dp", description="A data plane proxy of a mesh.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help="start one proxy: fetch its bootstrap and become Envoy",
        description=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_flags(run)
    commands.add_parser("version", help="print the version")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; returns only for `version`."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "version":
        print(f"koguma {own_version()} (compatible with Kuma {KUMA_VERSION})")  # noqa: T201  # what was asked for
        return
    try:
        start(from_arguments(arguments, os.environ), os.environ)
    except StartError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201  # the user's terminal
        sys.exit(1)
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
