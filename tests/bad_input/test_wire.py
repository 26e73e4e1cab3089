"""Peers that do not speak the protocol of the port: closed in time, counted, logged once; nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time

import httpx
import pytest

from tests.support import xds_client
from tests.support.running import LOOPBACK, eventually
from tests.support.xds_client import DELTA_METHOD, SOTW_METHOD

WITHIN_S = 10.0
HEALTH_METHOD = "/envoy.service.health.v3.HealthDiscoveryService/StreamHealthCheck"
HTTP = b"GET / HTTP/1.1\r\nhost: koguma\r\n\r\n"
HALF_HELLO = b"\x16\x03\x01\x02\x00\x01\x00"
GARBAGE_HELLO = b"\x16\x03\x01\x00\x20" + b"\xff" * 32
HALF_BODY = b"PUT /bootstrap HTTP/1.1\r\nhost: koguma\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
TLS_PORTS, PLAIN_PORTS = ("xds", "dp", "rest_tls"), ("rest", "diagnostics")


async def until_closed(port, hello, *, tls=False):
    """Say `hello` and nothing more; what came back, and after how many seconds the connection was closed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if tls else None
    if context is not None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=context)
    writer.write(hello)
    began_s = time.monotonic()
    answer = b""
    with contextlib.suppress(ConnectionResetError, ssl.SSLError):
        async with asyncio.timeout(WITHIN_S + 2):
            answer = await reader.read(1 << 16)
            while await reader.read(1 << 16):
                pass
    took_s = time.monotonic() - began_s
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
    return answer, took_s


async def test_silent_and_half_open_peers_and_streams_are_ended_on_every_port(plane, neighbour, open_stream):
    cases = [(name, hello, False) for name in TLS_PORTS for hello in (b"", b"\x16", HALF_HELLO)]
    cases += [(name, b"", True) for name in TLS_PORTS]
    cases += [(name, hello, False) for name in PLAIN_PORTS for hello in (b"", b"GET / HT", HTTP[:-2])]
    cases += [("rest", b"PUT /meshes/x HTTP/1.1\r\n", False), ("xds", HTTP, True), ("xds", HTTP, False)]
    cases += [("rest", HALF_BODY.replace(b"bootstrap", b"meshes/x"), False), ("dp", HALF_BODY, True)]
    cases += [("rest_tls", HALF_BODY.replace(b"bootstrap", b"meshes/x"), True), ("diagnostics", HALF_BODY, False)]
    counted = plane.metric("koguma_stream_events", event="silent_connections")
    waiting = asyncio.gather(*(until_closed(plane.ports[name], hello, tls=tls) for name, hello, tls in cases))
    streams = [open_stream(method, plane.token()) for method in (DELTA_METHOD, SOTW_METHOD, HEALTH_METHOD)]
    ends = asyncio.gather(*(stream.ended(12) for stream in streams))
    while not waiting.done():
        await neighbour.is_served()
        await asyncio.wait((waiting,), timeout=0.5)
    slow = [case for case, (_, took_s) in zip(cases, await waiting, strict=True) if took_s > WITHIN_S]
    assert not slow
    assert set(await ends) == {("DEADLINE_EXCEEDED", "no request within 10 s of opening the stream")}
    await neighbour.is_served()
    silent = len(cases)
    await eventually(
        lambda: plane.metric("koguma_stream_events", event="silent_connections") >= counted + silent, "counting them"
    )
    assert plane.log.count("connections to the ADS port were closed before they opened a stream") == 1


async def test_plain_text_on_a_tls_port_is_closed_counted_and_logged_once(plane):
    for name in ("dp", "rest_tls"):
        port = plane.ports[name]
        before = plane.metric("koguma_plaintext_on_tls", port=str(port))
        answers = await asyncio.gather(*(until_closed(port, HTTP) for _ in range(5)))
        for answer, took_s in answers:
            assert b"Client sent an HTTP request to an HTTPS server." in answer
            assert took_s < 1
        assert plane.metric("koguma_plaintext_on_tls", port=str(port)) == before + 5
        lines = [line for line in plane.log.splitlines() if "plain text on a TLS port" in line]
        assert len([line for line in lines if json.loads(line)["port"] == port]) == 1
    answers = await asyncio.gather(*(until_closed(plane.ports["xds"], HTTP) for _ in range(5)))
    assert max(took_s for _, took_s in answers) < WITHIN_S
    assert "ssl_transport_security" not in plane.log, "gRPC's core must not write a line for each of them"


@pytest.mark.parametrize("name", TLS_PORTS)
@pytest.mark.parametrize("hello", [GARBAGE_HELLO, b"\x16" + b"\x00" * 100, b"\x16\x03\x01\xff\xff" + b"x" * 70_000])
async def test_garbage_tls_is_closed(plane, name, hello):
    _, took_s = await until_closed(plane.ports[name], hello)
    assert took_s < WITHIN_S


async def test_http_1_on_the_grpc_port_is_closed(plane):
    _, took_s = await until_closed(plane.ports["xds"], HTTP, tls=True)
    assert took_s < WITHIN_S
    with pytest.raises(httpx.HTTPError):
        async with httpx.AsyncClient(verify=False, timeout=WITHIN_S) as client:  # noqa: S501  # the point is HTTP/1
            await client.get(f"https://{LOOPBACK}:{plane.ports['xds']}/")


@pytest.mark.parametrize(("name", "tls"), [("rest", False), ("diagnostics", False), ("dp", True), ("rest_tls", True)])
async def test_grpc_on_an_http_port_is_refused(plane, name, tls):
    channel = xds_client.channel(plane.ports[name], plane.ca_pem if tls else None)
    stream = xds_client.XdsStream(channel, xds_client.DELTA_METHOD)
    code, _ = await stream.ended(WITHIN_S)
    assert code in {"UNAVAILABLE", "INTERNAL", "UNKNOWN"}
    await channel.close()


@pytest.mark.parametrize("name", PLAIN_PORTS)
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00" * 1000,
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 50_000 + b"\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET \x00 HTTP/9.9\r\n\r\n",
    ],
)
async def test_a_request_that_is_not_http_is_answered_400_or_closed(plane, name, request_bytes):
    answer, took_s = await until_closed(plane.ports[name], request_bytes)
    assert took_s < WITHIN_S
    assert not answer or b" 4" in answer.splitlines()[0], answer[:200]
