"""What happens below the streams: TLS, silence, pings, ports; and the services beside discovery."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from snapshot.cache.type_url import CLUSTER
from snapshot.model.meta import ProxyKey
from tests.support.ads_parts import tls_pair
from tests.support.xds_client import SOTW_METHOD, node
from xds_server.ads.connections import Connections, PeerEnd, parse_peer
from xds_server.ads.server import AddressInUse
from xds_server.ads.services import SERVICE_NAMES
from xds_server.ads.settings import AdsSettings, channel_options

WEB = ProxyKey("default", "web.1")
NODE = node("default.web.1")
QUICK = AdsSettings(handshake_timeout_s=0.5, drain_s=0.1)


async def closed_within(reader: asyncio.StreamReader, limit_s: float) -> float:
    began_s = time.monotonic()
    async with asyncio.timeout(limit_s):
        while await reader.read(1000):
            pass
    return time.monotonic() - began_s


def client_tls(pair) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=pair.cert_pem.decode())
    context.set_alpn_protocols(["h2"])
    return context


def test_every_bad_connection_is_closed_within_ten_seconds():
    assert AdsSettings().handshake_timeout_s < 10
    assert ("grpc.server_handshake_timeout_ms", 8000) in channel_options(AdsSettings())


@pytest.mark.parametrize("hello", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n", b"\x16\x03\x01", b""])
async def test_plain_text_and_half_open_peers_are_closed_counted_and_logged_once(special, hello):
    harness = await special(settings=QUICK)
    harness.nodes.publish(WEB)
    for _ in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", harness.port)
        writer.write(hello)
        await closed_within(reader, 3)
        writer.close()
    stream = harness.stream(SOTW_METHOD)
    await stream.send(node=NODE, type_url=CLUSTER)
    await stream.receive()
    await harness.until(lambda: harness.observer.counts["silent_connections"] == 3)
    await asyncio.sleep(QUICK.handshake_timeout_s + 1)
    assert harness.observer.counts["silent_connections"] == 3
    assert [event for _, event, _ in harness.observer.lines if "plain text" in event] == [harness.observer.lines[0][1]]


async def test_a_peer_that_stays_silent_after_tls_is_closed(special):
    harness = await special(settings=QUICK)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", harness.port, ssl=client_tls(harness.pair), server_hostname="localhost"
    )
    assert await closed_within(reader, 5) < 3
    writer.close()
    await harness.until(lambda: harness.observer.counts["silent_connections"] == 1)


@pytest.mark.rule("XP-151")
async def test_a_new_certificate_is_presented_without_a_restart(harness):
    async def presented() -> bytes:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        _, writer = await asyncio.open_connection("127.0.0.1", harness.port, ssl=context)
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return ssl.DER_cert_to_PEM_cert(certificate).encode()

    assert await presented() == harness.pair.cert_pem
    harness.pair = tls_pair()
    assert await presented() == harness.pair.cert_pem


@pytest.mark.rule("XP-137", "XP-138")
async def test_a_client_may_ping_every_second(harness):
    harness.nodes.publish(WEB)
    channel = harness.channel(
        **{
            "grpc.keepalive_time_ms": 300,
            "grpc.http2.max_pings_without_data": 0,
            "grpc.keepalive_permit_without_calls": 1,
            "grpc.http2.min_time_between_pings_ms": 300,
        }
    )
    stream = harness.stream(SOTW_METHOD, channel=channel)
    await stream.send(node=NODE, type_url=CLUSTER)
    await stream.ack(await stream.receive())
    reading = asyncio.ensure_future(stream.receive(20))
    await asyncio.sleep(3.5)
    assert not reading.done()
    harness.nodes.publish(ProxyKey("default", "other"))
    reading.cancel()


async def test_a_taken_port_is_an_error_that_names_it(harness):
    other = type(harness)()
    with pytest.raises(AddressInUse, match=rf"xdsServer.port: cannot listen on 127\.0\.0\.1:{harness.port}"):
        other.server = await start_on(harness, harness.port)


async def start_on(harness, port):
    from xds_server.ads.server import AdsServer  # noqa: PLC0415

    server = AdsServer(
        harness.settings,
        tls=lambda: harness.pair,
        clock=harness.server._parts.clock,
        authenticator=harness.authenticator,
        registrar=harness.registrar,
        nodes=harness.nodes,
        observer=harness.observer,
    )
    await server.start("127.0.0.1", port)
    return server


@pytest.mark.rule("XP-151")
async def test_plain_text_is_served_on_loopback_only(harness):
    from xds_server.ads.server import AdsServer  # noqa: PLC0415

    server = AdsServer(
        harness.settings,
        tls=None,
        clock=harness.server._parts.clock,
        authenticator=harness.authenticator,
        registrar=harness.registrar,
        nodes=harness.nodes,
        observer=harness.observer,
    )
    with pytest.raises(ValueError, match=r"plain text is served on loopback only, not on 0\.0\.0\.0"):
        await server.start("0.0.0.0", 0)  # noqa: S104  # that it is refused is the point
    port = await server.start("127.0.0.1", 0)
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    check = health_pb2_grpc.HealthStub(channel).Check
    assert (await check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
    await channel.close()
    await server.stop(0)


async def test_health_and_reflection(harness):
    channel = harness.channel()
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", *SERVICE_NAMES):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    offered = {service.name for service in (await call.read()).list_services_response.service}
    assert offered >= {*SERVICE_NAMES, "grpc.health.v1.Health"}
    symbol = "envoy.service.discovery.v3.AggregatedDiscoveryService"
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
    assert (await call.read()).file_descriptor_response.file_descriptor_proto
    await call.done_writing()


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:5", ("127.0.0.1", 5)),
        ("ipv6:%5B::1%5D:5", ("::1", 5)),
        ("ipv6:[fe80::1%25eth0]:5", ("fe80::1", 5)),
        ("unix:/x", None),
        ("ipv4:nonsense:5", None),
    ],
)
def test_peers_are_read(peer, address):
    assert parse_peer(peer) == address


async def test_connections_of_one_address_are_counted_except_on_loopback():
    connections = Connections(silent_s=1, rejected=lambda _: None, log=lambda _: None)
    connections.start("127.0.0.1", 1)
    peers = [f"ipv4:192.0.2.1:{port}" for port in (1, 2, 2)]
    assert [connections.opened(peer) for peer in peers] == [1, 2, 2]
    assert connections.opened("ipv4:127.0.0.1:9") == 0
    for peer in peers:
        connections.closed(peer)
    assert connections.opened("ipv4:192.0.2.1:7") == 1
    connections.close()


async def test_an_open_connection_answers_and_a_closed_one_does_not(harness):
    harness.nodes.publish(WEB)
    stream = harness.stream(SOTW_METHOD)
    await stream.send(node=NODE, type_url=CLUSTER)
    await stream.receive()
    identity = harness.registrar.open[0]
    assert identity.peer.startswith("ipv4:127.0.0.1:")
    assert await identity.is_alive()
    await harness.channels.pop().close()
    await harness.until(lambda: harness.server.open_streams == 0)
    assert not await identity.is_alive()


async def test_a_server_on_all_addresses_tells_its_connections_from_its_listener():
    with socket.create_server(("0.0.0.0", 0)) as listener:  # noqa: S104  # the point
        port = listener.getsockname()[1]
        connections = Connections(silent_s=1, rejected=lambda _: None, log=lambda _: None)
        connections.start("0.0.0.0", port)  # noqa: S104  # as above
        with socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0] as accepted:
            peer = f"ipv4:127.0.0.1:{client.getsockname()[1]}"
            connections.opened(peer)
            assert connections.answers(peer)
            client.close()
            accepted.recv(1)
            assert not connections.answers(peer)
            assert await connections.ended(peer) is PeerEnd.LEFT
        connections.close()


async def test_a_health_check_is_no_silent_connection(special):
    harness = await special(settings=QUICK)
    for _ in range(2):
        check = health_pb2_grpc.HealthStub(harness.channel()).Check
        await check(health_pb2.HealthCheckRequest())
        await check(health_pb2.HealthCheckRequest())
    await asyncio.sleep(QUICK.handshake_timeout_s + 1.3)
    assert harness.observer.counts["silent_connections"] == 0
