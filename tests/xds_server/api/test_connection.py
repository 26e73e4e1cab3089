"""A peer that does not do its part is ended, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time

import pytest
from starlette.responses import PlainTextResponse, Response

from xds_server.api import connection, serve
from xds_server.api.app import api_app
from xds_server.api.serve import Server

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
LARGE = 8 * 1024 * 1024


async def answer(scope, receive, send):
    body = b"x" * LARGE if scope["path"] == "/large" else b"done"
    if scope["path"] == "/read":
        while (message := await receive())["type"] == "http.request" and message["more_body"]:
            pass
        body = message["type"].encode()
    if scope["path"] == "/busy":
        await asyncio.sleep(1)
    await Response(body)(scope, receive, send)


@pytest.fixture
def silent():
    """One item for each peer that was counted as silent."""
    return []


@pytest.fixture
async def server(monkeypatch, silent):
    monkeypatch.setattr(connection, "SILENCE_S", 0.4)
    monkeypatch.setattr(connection, "STALL_S", 0.3)
    monkeypatch.setattr(connection, "_LOOK_S", 0.1)
    monkeypatch.setattr(serve, "_YOUNG_S", 0.2)
    made = Server(answer, "x", silent=lambda: silent.append(1))
    made.port = await made.start("127.0.0.1", 0)
    yield made
    await made.stop(0.1)


async def connected(server):
    return await asyncio.open_connection("127.0.0.1", server.port)


async def seconds_until_closed(reader, writer, drip=b""):
    """Read what comes, sending `drip` all the time, until the peer ends the connection."""
    began_s = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while time.monotonic() - began_s < 5:
            writer.write(drip)
            await writer.drain()
            with contextlib.suppress(TimeoutError):
                if not await asyncio.wait_for(reader.read(65536), 0.05):
                    break
    writer.close()
    return time.monotonic() - began_s


@pytest.mark.parametrize(
    ("sent", "drip"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nX: ", b"a"),
        (GET + b"GET / HTTP/1.1\r\nX: ", b"a"),
        (GET + b"GET", b""),
        (b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n", b"a"),
        (b"PUT / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    ],
    ids=["nothing", "first head", "second head", "second head, silent", "unread body", "unread chunks"],
)
async def test_what_a_peer_began_it_must_finish_in_time_and_is_counted(server, silent, sent, drip):
    reader, writer = await connected(server)
    writer.write(sent)
    assert 0.3 < await seconds_until_closed(reader, writer, drip) < 1.5
    assert len(silent) == 1


PUT = b"PUT /read HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        PUT + b"Content-Length: 100\r\n\r\n",
        PUT + b"Content-Length: 100\r\n\r\na",
        PUT + b"Transfer-Encoding: chunked\r\n\r\n64\r\na",
        GET + PUT + b"Content-Length: 100\r\n\r\na",
        PUT + b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n",
    ],
    ids=["nothing of it", "a byte", "of a chunk", "of the second request", "after the invitation"],
)
@pytest.mark.parametrize("more", [b"", b"b"], ids=["silent at once", "silent later"])
async def test_a_body_that_stops_is_refused_in_time_and_counted(server, silent, sent, more):
    reader, writer = await connected(server)
    writer.write(sent)
    await asyncio.sleep(0.3)
    writer.write(more)
    began_s = time.monotonic()
    answers = await asyncio.wait_for(reader.read(), 3)
    assert time.monotonic() - began_s < 1
    assert b"HTTP/1.1 408 " in answers
    assert answers.endswith(b"The body of the request paused for 0.4 s")
    assert len(silent) == 1
    writer.close()


async def test_a_body_that_stops_ends_behind_tls_too(parts, monkeypatch, silent):
    """TLS ends with a goodbye of both sides: a peer that keeps its own back does not keep the connection."""
    monkeypatch.setattr(connection, "SILENCE_S", 0.4)
    monkeypatch.setattr(connection, "_GOODBYE_S", 0.2)
    server = Server(answer, "x", parts.tls, silent=lambda: silent.append(1))
    port = await server.start("127.0.0.1", 0)

    def until_closed() -> None:
        context = ssl.create_default_context(cafile=parts.tls.cert_file)
        peer = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 5), server_hostname="localhost")
        peer.sendall(PUT + b"Content-Length: 100\r\n\r\na")
        with socket.socket(fileno=peer.detach()) as without_tls, contextlib.suppress(ConnectionResetError):
            without_tls.settimeout(5)
            while without_tls.recv(4096):
                pass

    await asyncio.wait_for(asyncio.to_thread(until_closed), 3)
    assert (server.open_connections, len(silent)) == (0, 1)
    await server.stop(0.1)


async def test_a_body_may_be_slow_as_long_as_it_goes_on(server, silent):
    reader, writer = await connected(server)
    writer.write(PUT + b"Content-Length: 16\r\n\r\n")
    for _ in range(16):
        await asyncio.sleep(0.05)
        writer.write(b"a")
    assert b"http.request" in await asyncio.wait_for(reader.readuntil(b"http.request"), 2)
    assert silent == []
    writer.close()


@pytest.mark.parametrize(
    "more",
    [b"Content-Length: 1000000\r\n\r\n" + b"a" * 999_000, b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n"],
    ids=["not read", "not invited"],
)
async def test_a_peer_that_waits_for_us_is_not_silent(server, silent, more):
    reader, writer = await connected(server)
    writer.write(b"PUT /busy HTTP/1.1\r\nHost: localhost\r\n" + more)
    assert b"done" in await asyncio.wait_for(reader.readuntil(b"done"), 3)
    assert silent == []
    writer.close()


async def test_a_silent_handshake_is_counted(parts, monkeypatch, silent):
    monkeypatch.setattr(serve, "SILENCE_S", 0.3)
    server = Server(answer, "x", parts.tls, silent=lambda: silent.append(1))
    server.port = await server.start("127.0.0.1", 0)
    for hello in (b"", b"\x16\x03\x01\x02\x00\x01\x00"):
        reader, writer = await connected(server)
        writer.write(hello)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 3) == b""
        writer.close()
    assert len(silent) == 2
    await server.stop(0.1)


async def test_between_two_requests_a_peer_may_pause(server):
    reader, writer = await connected(server)
    for _ in range(3):
        writer.write(GET)
        assert b"done" in await reader.readuntil(b"done")
        await asyncio.sleep(0.5)
    writer.close()


def slow_client(server, request):
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    client.connect(("127.0.0.1", server.port))
    client.sendall(request)
    client.setblocking(False)
    return client


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"], ids=["keep-alive", "close"])
async def test_an_answer_that_nobody_takes_is_given_up(server, more):
    client = await asyncio.to_thread(
        slow_client, server, b"GET /large HTTP/1.1\r\nHost: localhost\r\n" + more + b"\r\n"
    )
    await asyncio.sleep(1.5)
    assert server.open_connections == 0
    client.close()


async def test_a_slow_reader_that_keeps_reading_gets_everything(server):
    client = await asyncio.to_thread(slow_client, server, b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
    taken, loop = 0, asyncio.get_running_loop()
    while taken < LARGE:
        part = await loop.sock_recv(client, 512 * 1024)
        assert part
        taken += len(part)
        await asyncio.sleep(0.005)
    client.close()


async def test_a_full_listener_ends_idle_connections_and_serves_the_next(server):
    server.most_connections = 4
    idle = [await connected(server) for _ in range(4)]
    for reader, writer in idle:
        writer.write(GET)
        await reader.readuntil(b"done")
    await asyncio.sleep(0.25)
    reader, writer = await connected(server)
    writer.write(GET)
    assert b"done" in await asyncio.wait_for(reader.readuntil(b"done"), 3)
    assert server.open_connections <= 4
    for _, one in [*idle, (reader, writer)]:
        one.close()


async def test_a_full_tls_listener_ends_handshakes_that_drag_on(parts, monkeypatch):
    monkeypatch.setattr(serve, "_DRAGGING_S", 0.5)
    server = Server(answer, "x", parts.tls)
    server.port, server.most_connections = await server.start("127.0.0.1", 0), 4
    half_open = [await connected(server) for _ in range(4)]
    for _, writer in half_open:
        writer.write(b"\x16\x03\x01\x02\x00\x01\x00")
    context = ssl.create_default_context(cafile=parts.tls.cert_file)
    reader, writer = await asyncio.wait_for(asyncio.open_connection("localhost", server.port, ssl=context), 4)
    writer.write(GET)
    assert b"done" in await asyncio.wait_for(reader.readuntil(b"done"), 3)
    for _, one in [*half_open, (reader, writer)]:
        one.close()
    await server.stop(0.1)


async def test_a_busy_connection_survives_a_full_listener(monkeypatch):
    monkeypatch.setattr(serve, "_YOUNG_S", 0.2)

    async def slow(scope, receive, send):
        await asyncio.sleep(0.6)
        await PlainTextResponse("done")(scope, receive, send)

    server = Server(slow, "x")
    server.port, server.most_connections = await server.start("127.0.0.1", 0), 1
    reader, writer = await connected(server)
    writer.write(GET)
    await asyncio.sleep(0.1)
    _, waiting = await connected(server)
    assert b"done" in await asyncio.wait_for(reader.readuntil(b"done"), 3)
    writer.close()
    waiting.close()
    await server.stop(0.1)


async def test_a_refused_body_is_read_so_that_the_refusal_arrives(parts):
    server = Server(api_app(parts.api), "x")
    port = await server.start("127.0.0.1", 0)
    size = parts.config.api_server.body_limit * 2
    head = f"PUT /meshes/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {size}\r\n"
    for media, status in (("application/json", b"413"), ("text/plain", b"415")):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{head}Content-Type: {media}\r\n\r\n".encode() + b"x" * size)
        assert status in await asyncio.wait_for(reader.read(), 5)
        writer.close()
    await server.stop()
