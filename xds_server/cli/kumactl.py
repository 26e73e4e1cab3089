"""The command `kumactl`: apply, get, delete, generate, completion, version. Everything goes through the REST API."""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qs, urlsplit

import typer

from xds_server.cli.examples import examples
from xds_server.cli.rest import DEFAULT_ADDRESS, CommandError, NotFoundError, Rest
from xds_server.cli.tables import as_json, as_yaml, resource_table
from xds_server.dp.go_syntax import duration_s, variables

if TYPE_CHECKING:
    from snapshot.registry import TypeDescriptor

PERSISTENT = ("--address", "--mesh", "-m", "--token-file", "--ca-cert-file", "--api-timeout")
"""Options that may stand before or behind the command, as in Kuma."""

EXAMPLES = {
    "apply": (
        "kumactl apply -f mesh.yaml",
        "kumactl apply -f directory/",
        "kumactl apply -f dp.yaml -v name=web-1 -v address=10.0.0.5 --dry-run",
        'echo \'{"type": "Mesh", "name": "staging"}\' | kumactl apply -f -',
    ),
    "get": (
        "kumactl get meshes",
        "kumactl get dataplanes --mesh staging",
        "kumactl get dataplane web-1 -o yaml",
    ),
    "delete": ("kumactl delete traffic-route canary --mesh staging",),
    "dataplane_token": (
        "kumactl generate dataplane-token --name web-1 > web-1.token",
        "kumactl generate dataplane-token --tag kuma.io/service=web,api --valid-for 720h > web.token",
    ),
    "completion": (
        "source <(kumactl completion bash)",
        "kumactl completion fish > ~/.config/fish/completions/kumactl.fish",
    ),
}

EPILOG = "Before or behind every command: --address, --mesh, --token-file, --ca-cert-file, --api-timeout."
app = typer.Typer(
    name="kumactl",
    help="Works with the resources of a mesh.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
generate = typer.Typer(help="Generate tokens.", no_args_is_help=True)
app.add_typer(generate, name="generate")


class Output(enum.StrEnum):
    """How results are printed."""

    TABLE = "table"
    YAML = "yaml"
    JSON = "json"


class Shell(enum.StrEnum):
    """Shells that can complete."""

    BASH = "bash"
    FISH = "fish"
    ZSH = "zsh"


@dataclass(frozen=True)
class Session:
    """Whom the command talks to, and the mesh it works in."""

    rest: Rest
    mesh: str


Out = Annotated[Output, typer.Option("-o", "--output", help="How to print.")]
Variables = Annotated[
    list[str] | None,
    typer.Option("-v", "--var", metavar="KEY=VALUE", help="Value for {{ KEY }}; may be repeated.", show_default=False),
]


@app.callback()
def connect(
    ctx: typer.Context,
    *,
    address: Annotated[
        str, typer.Option(envvar="KUMACTL_ADDRESS", help="REST API of the control plane.")
    ] = DEFAULT_ADDRESS,
    mesh: Annotated[str, typer.Option("-m", "--mesh", help="Mesh to work in.")] = "default",
    token_file: Annotated[
        str, typer.Option(help="File with a user token, for a control plane elsewhere (env KUMACTL_TOKEN: the token).")
    ] = "",
    ca_cert_file: Annotated[str, typer.Option(help="PEM certificate that an https address chains to.")] = "",
    api_timeout: Annotated[str, typer.Option(help="Longest wait for an answer.")] = "1m",
) -> None:
    """Works with the resources of a mesh."""
    timeout_s = _seconds("--api-timeout", api_timeout)
    ctx.obj = Session(Rest(address, _user_token(token_file), timeout_s or None, ca_cert_file), mesh)


def _seconds(flag: str, text: str) -> float:
    try:
        return duration_s(text)
    except ValueError as error:
        raise CommandError(f"{flag}: {error}") from error


def _user_token(token_file: str) -> str:
    if not token_file:
        return _printable(os.environ.get("KUMACTL_TOKEN", "").strip(), "KUMACTL_TOKEN")
    try:
        token = Path(token_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise CommandError(f"--token-file {token_file!r} cannot be read: {reason}") from error
    if not token:
        raise CommandError(f"--token-file {token_file!r} is empty")
    return _printable(token, f"--token-file {token_file!r}")


def _printable(token: str, origin: str) -> str:
    if not token.isascii() or not token.isprintable() or " " in token:
        raise CommandError(f"{origin} holds no token: a token is one word of letters, digits, '-', '_' and '.'")
    return token


@app.command(epilog=examples(*EXAMPLES["apply"]))
def apply(
    ctx: typer.Context,
    *,
    file: Annotated[str, typer.Option("-f", "--file", help="File, directory, or - for stdin.", show_default=False)],
    var: Variables = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be applied, and apply nothing.")] = False,
    output: Out = Output.TABLE,
) -> None:
    """Create or replace resources, given as YAML or JSON, templates if -v is given."""
    from xds_server.cli.sources import read_items  # noqa: PLC0415  # `--help` does not need the types

    session: Session = ctx.obj
    items = read_items(file, _variables("-v", var), session.mesh)
    if dry_run:
        documents = [dict(item.document) for item in items]
        typer.echo(as_json(documents) if output is Output.JSON else "\n---\n".join(map(as_yaml, documents)))
        return
    results = []
    for number, item in enumerate(items):
        try:
            answer = session.rest.put(item.path(), item.document)
        except CommandError as error:
            after = f"\n{number} of {len(items)} resources were applied before" if number else ""
            raise CommandError(f'{item.kind.name} "{item.name}": {error}{after}') from error
        for warning in answer.warnings or item.warnings():
            typer.echo(f'Warning: {item.kind.name} "{item.name}": {warning}', err=True)
        done = "created" if answer.created else "updated"
        results.append({"type": item.kind.name, "mesh": item.mesh, "name": item.name, "result": done})
        if output is Output.TABLE:
            typer.echo(f'{done} {item.kind.name} "{item.name}"')
    _structured(results, output)


@app.command(epilog=examples(*EXAMPLES["get"]))
def get(
    ctx: typer.Context,
    *,
    resource_type: Annotated[str, typer.Argument(metavar="TYPE", help="dataplanes, dataplane, meshes, …")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="One resource; all without it.")] = "",
    size: Annotated[int | None, typer.Option(help="Longest list to print.", min=1, show_default=False)] = None,
    offset: Annotated[str, typer.Option(help="Where the list begins.", show_default=False)] = "",
    output: Out = Output.TABLE,
) -> None:
    """Print one resource, or all of a type."""
    from xds_server.cli.resource_types import by_word, collection_path, is_global, resource_path  # noqa: PLC0415

    session: Session = ctx.obj
    kind, many = by_word(resource_type, many=True)
    if name:
        try:
            found = session.rest.get(resource_path(kind, session.mesh, name))
        except NotFoundError as error:
            where = "" if is_global(kind) else f' in mesh "{session.mesh}"'
            raise CommandError(f'No resources found: there is no {kind.name} with name "{name}"{where}') from error
        _print_resources(kind, [found], found, output)
        return
    if not many:
        raise CommandError(f"which {resource_type}? Give its NAME, or list all by `kumactl get {kind.cli_many}`")
    query = ({"size": str(size)} if size else {}) | ({"offset": offset} if offset else {})
    page = session.rest.get(collection_path(kind, session.mesh), **query)
    if not page["items"] and output is Output.TABLE:
        typer.echo("No resources found" if is_global(kind) else f"No resources found in {session.mesh} mesh")
        return
    _print_resources(kind, page["items"], page, output)
    if output is Output.TABLE and page.get("next"):
        following = parse_qs(urlsplit(page["next"]).query)["offset"][0]
        typer.echo(f"\nRerun command with --offset={following} argument to retrieve more resources")


def _print_resources(kind: TypeDescriptor, resources: Sequence[Any], whole: Any, output: Output) -> None:
    from xds_server.cli.resource_types import is_global  # noqa: PLC0415  # loaded by the caller
    from xds_server.clock import SystemClock  # noqa: PLC0415  # only a table shows ages

    if output is Output.TABLE:
        typer.echo(resource_table(kind.name, resources, SystemClock().now(), global_scope=is_global(kind)))
    else:
        _structured(whole, output)


def _structured(value: Any, output: Output) -> None:
    if output is not Output.TABLE:
        typer.echo(as_json(value) if output is Output.JSON else as_yaml(value))


@app.command(epilog=examples(*EXAMPLES["delete"]))
def delete(
    ctx: typer.Context,
    *,
    resource_type: Annotated[str, typer.Argument(metavar="TYPE", help="dataplane, mesh, …")],
    name: Annotated[str, typer.Argument(metavar="NAME")],
    output: Out = Output.TABLE,
) -> None:
    """Delete one resource."""
    from xds_server.cli.resource_types import by_word, is_global, resource_path  # noqa: PLC0415

    session: Session = ctx.obj
    kind, _ = by_word(resource_type)
    try:
        session.rest.delete(resource_path(kind, session.mesh, name))
    except NotFoundError as error:
        raise CommandError(f'there is no {kind.name} with name "{name}"') from error
    if output is Output.TABLE:
        typer.echo(f'deleted {kind.name} "{name}"')
    mesh = "" if is_global(kind) else session.mesh
    _structured({"type": kind.name, "mesh": mesh, "name": name, "result": "deleted"}, output)


@generate.command("dataplane-token", epilog=examples(*EXAMPLES["dataplane_token"]))
def dataplane_token(
    ctx: typer.Context,
    *,
    name: Annotated[str, typer.Option(help="Only for the Dataplane of this name.")] = "",
    tag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=V1,V2", help="Only for Dataplanes with one of these values; repeatable.", show_default=False
        ),
    ] = None,
    proxy_type: Annotated[str, typer.Option("--proxy-type", "--type", help="Only for proxies of this type.")] = "",
    valid_for: Annotated[str, typer.Option(help="How long the token can be used to join.")] = "87600h",
    output: Out = Output.TABLE,
) -> None:
    """Print a token that lets Dataplanes join the mesh. Nothing follows it, so that it can go to a file as it is."""
    session: Session = ctx.obj
    if _seconds("--valid-for", valid_for) <= 0:
        raise CommandError(f"--valid-for: {valid_for!r} must be longer than 0")
    tags = {key: values.split(",") for key, values in _variables("--tag", tag).items()}
    wish = {"name": name, "mesh": session.mesh, "tags": tags, "type": proxy_type, "validFor": valid_for}
    token = str(session.rest.post("/tokens/dataplane", wish))
    if output is Output.TABLE:
        typer.echo(token, nl=False)
    _structured({"token": token}, output)


@app.command(epilog=examples(*EXAMPLES["completion"]))
def completion(*, shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, fish or zsh.")]) -> None:
    """Print the script that lets a shell complete kumactl's commands."""
    from typer.completion import (  # type: ignore[attr-defined]  # noqa: PLC0415  # not in its list; only here
        get_completion_script,
    )

    typer.echo(get_completion_script(prog_name="kumactl", complete_var="_KUMACTL_COMPLETE", shell=shell))


@app.command()
def version(ctx: typer.Context, *, output: Out = Output.TABLE) -> None:
    """Print the versions of this tool and of the control plane."""
    from importlib.metadata import version as installed  # noqa: PLC0415  # only here

    session: Session = ctx.obj
    client = {"product": "koguma", "version": installed("koguma")}
    try:
        server = session.rest.get("/")
    except CommandError as error:
        typer.echo(f"Warning: {error}", err=True)
        server = None
    if output is Output.TABLE:
        typer.echo(f"Client: koguma {client['version']}")
        if isinstance(server, dict):
            typer.echo(f"Server: {server.get('tagline', '')} {server.get('version', '')}".rstrip())
    _structured({"client": client, "server": server}, output)


def _variables(flag: str, given: list[str] | None) -> dict[str, str]:
    try:
        return variables(given or ())
    except ValueError as error:
        raise CommandError(f"{flag}: {error}") from error


def persistent_first(argv: Sequence[str]) -> list[str]:
    """The same command line with the persistent options before the command."""
    first: list[str] = []
    rest: list[str] = []
    left = iter(argv)
    for argument in left:
        if argument == "--":
            rest += [argument, *left]
        elif argument in PERSISTENT:
            first += [argument, *(value for value in [next(left, None)] if value is not None)]
        elif argument.startswith(tuple(f"{name}=" for name in PERSISTENT)):
            first.append(argument)
        else:
            rest.append(argument)
    return first + rest


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    try:
        app(persistent_first(sys.argv[1:] if argv is None else argv))
    except CommandError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except OSError as error:  # whatever is read or asked for has an error of its own: this is the output
        typer.echo(f"Error: the output cannot be written: {error.strerror or error}", err=True)
        os._exit(1)  # an ordinary exit would try to write it again


if __name__ == "__main__":
    main()
