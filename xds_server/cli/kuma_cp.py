"""The command `kuma-cp`: `run`, `demo`, `health`, `version`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xds_server.cli.examples import examples

if TYPE_CHECKING:
    from xds_server.config import Loaded

app = typer.Typer(
    name="kuma-cp",
    help="The control plane of a mesh.",
    epilog=examples("kuma-cp demo", "kuma-cp run", "kuma-cp run --data-dir /var/lib/kuma --config-file kuma-cp.yaml"),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
HEALTH_TIMEOUT_S = 5.0

ConfigFile = Annotated[
    Path | None, typer.Option("-c", "--config-file", help="YAML settings, with Kuma's names.", show_default=False)
]


def _settings(config_file: Path | None, flags: dict[str, object] | None = None) -> Loaded:
    from xds_server.config import ConfigError, load  # noqa: PLC0415  # `--help` does not need them

    try:
        return load(config_file, flags=flags)
    except ConfigError as error:
        typer.echo("Error: the control plane is not configured correctly:", err=True)
        for fault in error.faults:
            typer.echo(f"* {fault}", err=True)
        raise typer.Exit(1) from error


@app.callback()
def before(
    ctx: typer.Context,
    *,
    log_level: Annotated[
        str | None, typer.Option(help="As of `run`: Kuma takes it before the command too.", show_default=False)
    ] = None,
) -> None:
    """The control plane of a mesh."""
    ctx.obj = log_level


@app.command()
def run(
    ctx: typer.Context,
    *,
    config_file: ConfigFile = None,
    data_dir: Annotated[
        str | None, typer.Option(help="Directory with all state; default ~/.kuma.", show_default=False)
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="off, error, warning, info or debug; default info.", show_default=False)
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="console or json; default console.", show_default=False)
    ] = None,
) -> None:
    """Run the control plane until SIGTERM or Ctrl-C. Flags override the environment, which overrides the file."""
    flags = {"general.workDir": data_dir, "general.logLevel": log_level or ctx.obj, "general.logFormat": log_format}
    loaded = _settings(config_file, dict(flags))
    import structlog  # noqa: PLC0415  # `--help` does not need it

    from xds_server.telemetry import set_up_logging  # noqa: PLC0415

    set_up_logging(loaded.config.general.log_level, loaded.config.general.log_format)
    for warning in loaded.warnings:
        structlog.get_logger("config").warning(warning)
    # gRPC's core reads this as it is imported; it would log every failed TLS handshake, so anybody could fill the log
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from xds_server.app import main as serve  # noqa: PLC0415

    raise typer.Exit(serve(loaded.config))


@app.command()
def demo(
    *, check: Annotated[bool, typer.Option("--check", help="Run once, verify what comes through, and end.")] = False
) -> None:
    """Start a mesh with real Envoys on free loopback ports, and send traffic through it."""
    from xds_server.demo.story import main as tell  # noqa: PLC0415  # `--help` does not need it

    raise typer.Exit(tell(check=check))


@app.command()
def health(*, config_file: ConfigFile = None) -> None:
    """Ask the control plane on this machine whether it is ready; exit status 0 means yes."""
    import http.client  # noqa: PLC0415  # `--help` does not need it

    port = _settings(config_file).config.diagnostics.server_port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HEALTH_TIMEOUT_S)
    try:
        connection.request("GET", "/ready")
        answer = str(connection.getresponse().status)
    except (OSError, http.client.HTTPException) as error:
        answer = str(error) or type(error).__name__
    finally:
        connection.close()
    if answer != str(int(http.client.OK)):
        typer.echo(f"Error: port {port} of this machine does not say ready: {answer}", err=True)
        raise typer.Exit(1)
    typer.echo("ready")


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed  # noqa: PLC0415  # `--help` does not need it

    typer.echo(f"koguma {installed('koguma')}")


def main() -> None:
    """Entry point."""
    sys.exit(app())


if __name__ == "__main__":
    main()
