"""The last step: the bootstrap into memory, and Envoy in place of this process."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from xds_server.dp.documents import DocumentError, parse
from xds_server.dp.envoy_binary import Build
from xds_server.dp.errors import StartError
from xds_server.dp.options import Options

ENVOY_LEVELS = {"warn": "warning"}
TOKEN_VARIABLE = "KUMA_DATAPLANE_RUNTIME_TOKEN"  # noqa: S105  # a name


def bootstrap_document(text: str) -> Mapping[str, Any]:
    """The bootstrap as data. Raises StartError if it is none."""
    try:
        documents = [json.loads(text)] if text.lstrip().startswith("{") else parse(text)
    except (DocumentError, ValueError) as error:
        raise StartError(f"the control plane's bootstrap cannot be read: {error}") from error
    if len(documents) != 1:
        raise StartError(f"the control plane's bootstrap holds {len(documents)} documents instead of one")
    document: Mapping[str, Any] = documents[0]
    return document


def either(message: Any, camel: str, snake: str) -> Any:
    """A field of a protobuf-JSON message by either of its spellings; {} if it is absent."""
    return (message.get(camel) or message.get(snake) or {}) if isinstance(message, dict) else {}


def admin_interface(bootstrap: Mapping[str, Any]) -> tuple[str, int]:
    """Address and port of Envoy's admin in the bootstrap; ("", 0) without one."""
    address = either(either(bootstrap, "admin", "admin"), "address", "address")
    socket_address = either(address, "socketAddress", "socket_address")
    port = either(socket_address, "portValue", "port_value")
    if not isinstance(port, int):
        return "", 0
    return str(either(socket_address, "address", "address") or ""), port


def expects_helpers(bootstrap: Mapping[str, Any]) -> bool:
    """Whether the control plane counts on Kuma's helper processes beside Envoy, which are not run here."""
    clusters = either(either(bootstrap, "staticResources", "static_resources"), "clusters", "clusters") or ()
    return any(isinstance(cluster, dict) and cluster.get("name") == "access_log_sink" for cluster in clusters)


def arguments(binary: str, config_path: str, options: Options, build: Build) -> list[str]:
    """Envoy's command line (R §8.1); by default as many threads as the CPU set allows."""
    by_default = [] if build.is_cpuset_default else ["--cpuset-threads"]
    threads = ["--concurrency", str(options.concurrency)] if options.concurrency else by_default
    level = ENVOY_LEVELS.get(options.log_level, options.log_level)
    fixed = ["--drain-time-s", str(options.drain_time_s), "--disable-hot-restart", "--log-level", level]
    return [binary, "--config-path", config_path, *fixed, *threads]


def config_path(text: str, document: Mapping[str, Any], directory: str) -> str:
    """A path that Envoy can read the bootstrap from.

    It carries the proxy's credential, so by default it never has a name: Envoy reads it by a descriptor that it
    inherits. There it is JSON, because Envoy knows YAML only by a file's extension. With `--config-dir` the text is
    written there unchanged, as Kuma does, for the owner's eyes only.
    """
    if directory:
        path = Path(directory) / "bootstrap.yaml"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW  # a link may lead to a file of somebody else
            with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o600)  # also where the file was there before
                file.write(text)
        except OSError as error:
            raise StartError(f"--config-dir {directory!r}: {path} cannot be written: {error.strerror}") from error
        return str(path)
    descriptor = _unnamed_file()
    data = json.dumps(document).encode()
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.set_inheritable(descriptor, True)
    return f"/dev/fd/{descriptor}"


def _unnamed_file() -> int:
    try:
        return os.memfd_create("envoy-bootstrap")
    except (AttributeError, OSError):  # not Linux, or forbidden in a sandbox: a file whose name is gone at once
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())


def become(argv: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Replace this process by Envoy. The token does not stay in the environment. Raises StartError."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execve(argv[0], list(argv), {k: v for k, v in environ.items() if k != TOKEN_VARIABLE})  # noqa: S606
    except OSError as error:
        raise StartError(f"{argv[0]} cannot be run: {error.strerror}") from error
