"""Real processes of a mesh: `kuma-cp run` and `kuma-dp run` (which becomes Envoy), started, awaited, killed.

Every address lies in 127.0.0.0/8; everything that is written lies in one directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.02


class StartError(Exception):
    """A process ended, or did not become ready in time; the text holds the end of its log."""


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _environment() -> dict[str, str]:
    """Ours without settings for Kuma: those of the user's own mesh are not meant for this one."""
    return {name: value for name, value in os.environ.items() if not name.startswith("KUMA")}


class Process:
    """A child whose output goes to `log`."""

    def __init__(self, name: str, argv: list[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as out:
            self._child = subprocess.Popen(  # noqa: S603 - our own commands, no shell
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**_environment(), **(env or {})}
            )
        self.pid = self._child.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._child.poll() is None

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return when `condition` holds; StartError when the process ends first or the time is over."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if not self.running:
                raise StartError(f"{self.name} ended with status {self._child.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise StartError(f"{self.name}: {what} did not happen within {timeout_s:g} s:\n{self.tail()}")
            time.sleep(POLL_S)

    def tail(self, lines: int = 15) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait_for_end(self) -> int:
        """Return its exit status once it has ended by itself. Raises subprocess.TimeoutExpired."""
        return self._child.wait(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to end, and wait; its exit status. It is killed when it does not listen."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        if self.running:
            self._child.send_signal(how)
        try:
            return self._child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            return self._child.wait()


class ControlPlane:
    """`kuma-cp run` on free loopback ports; keeps its ports and its data over `restart`."""

    PORTS: Mapping[str, str] = {
        "rest": "KUMA_API_SERVER_HTTP_PORT",
        "dp": "KUMA_DP_SERVER_PORT",
        "xds": "KUMA_XDS_SERVER_PORT",
        "diagnostics": "KUMA_DIAGNOSTICS_SERVER_PORT",
    }

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.ports = {name: free_port() for name in self.PORTS}
        self._env = {
            **{variable: str(self.ports[name]) for name, variable in self.PORTS.items()},
            "KUMA_API_SERVER_HTTP_INTERFACE": LOOPBACK,
            "KUMA_API_SERVER_HTTPS_ENABLED": "false",
            "KUMA_GENERAL_WORK_DIR": str(directory / "cp"),
            **(settings or {}),
        }
        self.process: Process | None = None
        self.rest = httpx.Client(base_url=f"http://{LOOPBACK}:{self.ports['rest']}", timeout=30, trust_env=False)

    @property
    def url(self) -> str:
        """Where `kuma-dp run --cp-address` goes."""
        return f"https://{LOOPBACK}:{self.ports['dp']}"

    def start(self) -> None:
        """Start it and return when it is ready."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind("")  # the kernel chooses an abstract address: no path, so no limit on its length
            ready.setblocking(False)
            address = "@" + ready.getsockname()[1:].decode()
            self.process = Process(
                "kuma-cp",
                [sys.executable, "-m", "xds_server.cli.kuma_cp", "run"],
                self.directory / "kuma-cp.log",
                {**self._env, "NOTIFY_SOCKET": address},
            )
            self.process.wait_until(lambda: _notified(ready), "becoming ready")

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.kill()

    def restart(self) -> None:
        """Kill it and start it again over the same data and ports."""
        self.kill()
        self.start()

    def stop(self) -> int:
        """End it in order; its exit status."""
        self.rest.close()
        return self.process.stop() if self.process is not None else 0


def _notified(ready: socket.socket) -> bool:
    try:
        return b"READY=1" in ready.recv(4096)
    except BlockingIOError:
        return False


class Proxy:
    """One data plane: `kuma-dp run`, which becomes Envoy."""

    def __init__(self, process: Process, resource: Mapping[str, Any], admin_port: int) -> None:
        self.process = process
        self.resource = resource
        self.name: str = resource["name"]
        self.admin_port = admin_port
        self.admin = httpx.Client(base_url=f"http://{LOOPBACK}:{admin_port}", timeout=5, trust_env=False)

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return when Envoy has its first configuration."""
        self.process.wait_until(self._live, "Envoy becoming ready", timeout_s)

    def _live(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return self.admin.get("/ready").status_code == httpx.codes.OK
        return False

    def stats(self, pattern: str) -> dict[str, int]:
        """Envoy's counters and gauges whose name matches the regular expression."""
        body = self.admin.get("/stats", params={"filter": pattern, "format": "json"}).json()
        return {stat["name"]: stat["value"] for stat in body["stats"] if "value" in stat}

    def config_dump(self) -> Any:
        """Envoy's whole configuration, endpoints included."""
        return self.admin.get("/config_dump", params={"include_eds": ""}).json()

    def stop(self) -> None:
        """End Envoy."""
        self.process.stop()
        self.admin.close()


class Mesh:
    """A control plane and its proxies.

    `settings` are environment variables of the control plane. Use as a context manager.
    """

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.control_plane = ControlPlane(directory, settings)
        self.proxies: list[Proxy] = []

    @property
    def rest(self) -> httpx.Client:
        """A client of the REST API, as the administrator on this machine."""
        return self.control_plane.rest

    def __enter__(self) -> Self:
        self.control_plane.start()
        return self

    def __exit__(self, *_: object) -> None:
        for proxy in self.proxies:
            proxy.stop()
        self.control_plane.stop()

    def apply(self, *documents: str | Mapping[str, Any]) -> None:
        """Create or replace resources, given as YAML text (several documents allowed) or as mappings."""
        for document in _flat(documents):
            response = self.rest.put(self._path(document["type"], document), json=document)
            if response.is_error:
                raise ValueError(f"{document['type']} {document['name']!r} was refused: {response.text}")

    def delete(self, resource_type: str, name: str, mesh: str = "default") -> None:
        """Delete a resource."""
        path = self._path(resource_type, {"mesh": mesh, "name": name})
        self.rest.delete(path).raise_for_status()

    def _path(self, resource_type: str, meta: Mapping[str, Any]) -> str:
        from snapshot.registry import Scope, descriptor  # noqa: PLC0415 - keeps the plugin's import cheap

        found = descriptor(resource_type)
        scope = "" if found.scope is Scope.GLOBAL else f"/meshes/{meta.get('mesh', 'default')}"
        return f"{scope}/{found.path}/{meta['name']}"

    def token(self, name: str, mesh: str = "default") -> str:
        """A token for the Dataplane `name`."""
        return self.rest.post("/tokens/dataplane", json={"name": name, "mesh": mesh}).raise_for_status().text

    def run_proxy(self, resource: Mapping[str, Any], *, protocol: str = "delta", wait: bool = True) -> Proxy:
        """Start `kuma-dp run` for a Dataplane given as a mapping; an admin port is chosen where it names none."""
        document = {"type": "Dataplane", "mesh": "default", **resource}
        networking = {"address": LOOPBACK, **document["networking"]}
        admin_port: int = networking.setdefault("admin", {"port": free_port()})["port"]
        document["networking"] = networking
        name = document["name"]
        template, token = self.directory / f"{name}.yaml", self.directory / f"{name}.token"
        template.write_text(yaml.safe_dump(document))
        token.write_text(self.token(name, document["mesh"]))
        argv = [sys.executable, "-m", "xds_server.dp.main", "run"]
        argv += [f"--cp-address={self.control_plane.url}", f"--dataplane-file={template}"]
        argv += [f"--dataplane-token-file={token}", f"--xds-protocol={protocol}", "--concurrency=1"]
        process = Process(
            f"kuma-dp {name}",
            argv,
            self.directory / f"{name}.log",
            {"KUMA_GENERAL_WORK_DIR": str(self.directory / "cp"), "XDG_STATE_HOME": str(self.directory / "state")},
        )
        proxy = Proxy(process, document, admin_port)
        self.proxies.append(proxy)
        if wait:
            proxy.wait_ready()
        return proxy

    def wait_for(self, condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
        """Return when `condition` holds; TimeoutError naming `what` otherwise."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not happen within {timeout_s:g} s")
            time.sleep(POLL_S)


def _flat(documents: tuple[str | Mapping[str, Any], ...]) -> Iterator[Mapping[str, Any]]:
    for document in documents:
        if isinstance(document, str):
            yield from (json.loads(json.dumps(one)) for one in yaml.safe_load_all(document) if one)
        else:
            yield document
