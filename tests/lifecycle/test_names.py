"""Domain names of Dataplanes over a kill -9 while DNS is broken: real Envoys keep their configuration and traffic."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER
from tests.support.xds_client import DELTA_METHOD, XdsStream, channel, node
from xds_server.certs.pair import CERT_FILE
from xds_server.demo.mesh import TestMesh
from xds_server.demo.processes import LOOPBACK, free_port
from xds_server.demo.services import http_service

NAMES = {"backend.test": LOOPBACK, "client.test": LOOPBACK}
LOOKUPS = '''"""Loaded by the interpreter at its start: names of .test are looked up in a file that a test writes."""
import json, pathlib, socket

system, zone = socket.getaddrinfo, pathlib.Path(__file__).with_name("zone.json")

def getaddrinfo(host, *arguments, **named):
    if str(host).endswith(".test"):
        host = json.loads(zone.read_text()).get(host)
        if host is None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return system(host, *arguments, **named)

socket.getaddrinfo = getaddrinfo
'''
COUNTERS = r"^(listener_manager\.listener_(added|modified|removed)|cluster_manager\.cluster_(added|modified|removed))$"
CONNECTED = "control_plane.connected_state"


class Dns:
    """What a control plane with `settings` is answered about names of .test."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(LOOKUPS)
        self._zone = folder / "zone.json"
        path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
        self.settings = {"PYTHONPATH": path, "KUMA_GENERAL_DNS_CACHE_TTL": "200ms"}

    def answers(self, records: dict[str, str]) -> None:
        written = self._zone.with_suffix(".new")
        written.write_text(json.dumps(records))
        written.replace(self._zone)


@pytest.fixture
def dns(tmp_path):
    made = Dns(tmp_path / "dns")
    made.answers(NAMES)
    return made


def named(service, address, **networking):
    return {"name": f"{service}-1", "networking": {"address": address, **networking}}


async def sent(mesh, name):
    """What a client without any state is sent, which is no Envoy of this test: type → resource name → version."""
    ca_pem = (mesh.directory / "cp" / CERT_FILE).read_bytes()
    connection = channel(mesh.control_plane.ports["xds"], ca_pem)
    stream = XdsStream(connection, DELTA_METHOD, mesh.token(name))
    versions = {}
    for type_url, names in ((CLUSTER, ["*"]), (ENDPOINT, ["backend"]), (LISTENER, ["*"])):
        first = {} if versions else {"node": node(f"default.{name}")}
        await stream.send(type_url=type_url, resource_names_subscribe=names, **first)
        response = await stream.receive()
        await stream.ack(response)
        versions[response.type_url] = {resource.name: resource.version for resource in response.resources}
    await connection.close()
    return versions


def reported(mesh):
    """How often the control plane said that a name does not resolve."""
    return (mesh.directory / "kuma-cp.log").read_text().count("Temporary failure in name resolution")


async def test_a_restart_while_dns_is_broken_changes_nothing(tmp_path, dns):
    with (
        http_service(lambda path, headers: {"path": path}) as stub,
        TestMesh(tmp_path, dns.settings) as mesh,
    ):
        inbound = {
            "port": free_port(),
            "servicePort": stub.port,
            "tags": {"kuma.io/service": "backend", "kuma.io/protocol": "http"},
        }
        backend = mesh.run_proxy(named("backend", "backend.test", inbound=[inbound]))
        outbound = {"port": free_port(), "tags": {"kuma.io/service": "backend"}}
        gateway = {"tags": {"kuma.io/service": "client"}}
        client = mesh.run_proxy(named("client", "client.test", gateway=gateway, outbound=[outbound]))
        mesh.wait_for(lambda: mesh.get(outbound["port"]).status_code == 200, "an answer of the backend")
        counted = [proxy.stats(COUNTERS) for proxy in (backend, client)]
        networking = {"address": "client.test", "gateway": gateway, "outbound": [outbound]}
        mesh.apply({"type": "Dataplane", "mesh": "default", "name": "watcher", "networking": networking})
        before = await sent(mesh, "watcher")
        assert all(before.values()), "each type has something that could change"

        dns.answers({})
        mesh.wait_for(lambda: reported(mesh) > 0, "the failure being noticed")
        said = reported(mesh)
        mesh.control_plane.restart()
        for proxy in (backend, client):
            mesh.wait_for(
                lambda proxy=proxy: proxy.stats(f"^{CONNECTED}$") == {CONNECTED: 1},
                f"{proxy.name} being connected again",
                timeout_s=30,
            )
        mesh.wait_for(lambda: reported(mesh) > said, "the failure being noticed again")
        assert await sent(mesh, "watcher") == before
        assert mesh.get(outbound["port"], "/after").json() == {"path": "/after"}
        assert [proxy.stats(COUNTERS) for proxy in (backend, client)] == counted
        resources = mesh.rest.get("/meshes/default/dataplanes").json()
        assert {one["networking"]["address"] for one in resources["items"]} == set(NAMES)
