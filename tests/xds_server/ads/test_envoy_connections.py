"""A real Envoy: it pings every second and keeps its connection (XP-137), or is sent away when that is old (XP-140)."""

from __future__ import annotations

import asyncio
import contextlib
import json

import httpx
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster

from snapshot.cache.resource import XdsResource
from snapshot.cache.type_url import CLUSTER
from snapshot.model.meta import ProxyKey
from tests.support.real_envoy import envoy_binary
from xds_server.ads.ports import Ending
from xds_server.ads.settings import AdsSettings

WEB = ProxyKey("default", "web")
HTTP2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
ADS = {"ads": {}, "resource_api_version": "V3"}
PINGING_S = 60.0
BACK_S = 2.0


def bootstrap(port: int, ca_pem: bytes, *, delta: bool) -> dict:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    http2 = {"connection_keepalive": {"interval": "1s", "timeout": "5s"}}
    ads = {
        "api_type": "DELTA_GRPC" if delta else "GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [
            {
                "envoy_grpc": {"cluster_name": "ads"},
                "initial_metadata": [{"key": "authorization", "value": "any"}],
            }
        ],
    }
    cluster = {
        "name": "ads",
        "type": "STATIC",
        "typed_extension_protocol_options": {
            HTTP2: {
                "@type": f"type.googleapis.com/{HTTP2}",
                "explicit_http_config": {"http2_protocol_options": http2},
            }
        },
        "transport_socket": {
            "name": "tls",
            "typed_config": {
                "@type": f"type.googleapis.com/{TLS}",
                "common_tls_context": {"validation_context": {"trusted_ca": {"inline_string": ca_pem.decode()}}},
            },
        },
        "load_assignment": {
            "cluster_name": "ads",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    return {
        "node": {"id": "default.web", "cluster": "web"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {"ads_config": ads, "lds_config": ADS, "cds_config": ADS},
        "static_resources": {"clusters": [cluster]},
    }


@contextlib.asynccontextmanager
async def envoy(folder, configuration: dict):
    """A real Envoy; yields how to read one of its statistics."""
    config, admin, log = folder / "bootstrap.json", folder / "admin", folder / "envoy.log"
    config.write_text(json.dumps(configuration), encoding="utf-8")
    flags = ["--disable-hot-restart", "--concurrency", "1", "--admin-address-path", str(admin), "--log-path", str(log)]
    process = await asyncio.create_subprocess_exec(str(envoy_binary()), "--config-path", str(config), *flags)

    async def stat(name: str) -> int:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://{admin.read_text()}/stats", params={"filter": f"^{name}$"})
        return int(answer.text.rpartition(":")[2]) if answer.text.strip() else 0

    try:
        yield stat
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.slow
@pytest.mark.rule("XP-137", "XP-138")
@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
async def test_a_pinging_envoy_stays_connected(special, tmp_path, delta):
    harness = await special(settings=AdsSettings(drain_s=0.1))
    harness.nodes.publish(WEB, XdsResource.of(CLUSTER, "a", Cluster(name="a", type=Cluster.STATIC)))
    async with envoy(tmp_path, bootstrap(harness.port, harness.pair.cert_pem, delta=delta)) as stat:
        await harness.until(lambda: harness.server.sessions(WEB), 20)
        (session,) = harness.server.sessions(WEB)
        await asyncio.sleep(PINGING_S)
        assert harness.server.sessions(WEB) == {session}
        assert await stat("control_plane.connected_state") == 1
        assert await stat("cluster.ads.upstream_cx_total") == 1
        assert await stat("cluster.ads.http2.keepalive_timeout") == 0
        harness.nodes.publish(WEB, XdsResource.of(CLUSTER, "b", Cluster(name="b", type=Cluster.STATIC)))
        await harness.until(lambda: harness.observer.records[0].events[-1][0] == "acked", 5)
        assert await stat("cluster_manager.active_clusters") == 3


@pytest.mark.slow
@pytest.mark.rule("XP-140")
@pytest.mark.parametrize("delta", [False, True], ids=["sotw", "delta"])
async def test_an_envoy_whose_connection_grows_old_is_back_at_once_and_loses_nothing(special, tmp_path, delta):
    harness = await special(settings=AdsSettings(max_connection_age_s=2.0, drain_s=0.1))
    harness.nodes.publish(WEB, XdsResource.of(CLUSTER, "a", Cluster(name="a", type=Cluster.STATIC)))
    async with envoy(tmp_path, bootstrap(harness.port, harness.pair.cert_pem, delta=delta)) as stat:
        await harness.until(lambda: len(harness.registrar.released) >= 2, 20)
        await harness.until(lambda: harness.server.sessions(WEB), BACK_S)
        assert await stat("cluster.ads.upstream_cx_total") >= 3
        assert await stat("cluster_manager.active_clusters") == 2
        assert (await stat("cluster_manager.cluster_added"), await stat("cluster_manager.cluster_modified")) == (2, 0)
        assert {how for _, how in harness.registrar.released} == {Ending.SHUTDOWN}
