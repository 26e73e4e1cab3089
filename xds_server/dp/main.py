"""The command `kuma-dp`. Read `start` for the order of things."""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from xds_server.dp import launch
from xds_server.dp.admin_port import Claims
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
    build = probe.result()
    body = request(options, proxy, token, build)
    body["caCert"] = getattr(trust, "pem", "")
    claimed = _claims(options, proxy, body)

    def ask() -> str:
        return patiently(lambda: client.fetch(body), options.retry_backoff_s, options.retry_max_duration_s, _say)

    text, bootstrap, port = _with_free_admin_port(ask, claimed, body, proxy)
    if launch.expects_helpers(bootstrap):
        _say(
            "this control plane counts on Kuma's helper processes: access logs to TCP and merged metrics will not work"
        )
    path = launch.config_path(text, bootstrap, options.config_dir)
    _say(f"starting Envoy for {proxy.mesh}.{proxy.name}, admin on port {port or 'none'}")
    launch.become(launch.arguments(probe.binary, path, options, build), environ)


def _claims(options: Options, proxy: Definition, body: dict[str, Any]) -> Claims:
    """What is claimed before the control plane is asked: a port that the user chose. Raises StartError if it is taken.

    The Dataplane's own word counts for more than the flag. Without either, the control plane chooses.
    """
    if port := proxy.admin_port():
        if options.admin_port:
            _say(f"--admin-port {options.admin_port} has no effect: the Dataplane says networking.admin.port: {port}")
        claimed = Claims(proxy.address(), ())  # that it differs from the Dataplane's other ports is its validation's
        if not claimed.claim(port):
            raise StartError(_taken(port, proxy))
        return claimed
    claimed = Claims(proxy.address(), proxy.listening_ports())
    if options.admin_port:
        body["adminPort"] = claimed.first_of(options.admin_port)
    return claimed


def _with_free_admin_port(
    ask: Callable[[], str], claimed: Claims, body: dict[str, Any], proxy: Definition
) -> tuple[str, Mapping[str, Any], int]:
    """The bootstrap as text and as data, and its admin port, claimed; 0 where the control plane wants no admin.

    If the port that the control plane chose is taken, it is asked once more, for a free one. Raises StartError.
    """
    while True:
        text = ask()
        bootstrap = launch.bootstrap_document(text)
        address, port = launch.admin_interface(bootstrap)
        claimed.also_at(address)
        if not port or claimed.claim(port):
            claimed.keep_only(port)
            return text, bootstrap, port
        if "adminPort" in body or proxy.admin_port():
            raise StartError(_taken(port, proxy))
        body["adminPort"] = claimed.any_free()


def _taken(port: int, proxy: Definition) -> str:
    return (
        f"port {port} for Envoy's admin is taken: another process has it, or this user may not open it; "
        f"free it, or set another networking.admin.port in Dataplane {proxy.mesh}.{proxy.name}"
    )


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
