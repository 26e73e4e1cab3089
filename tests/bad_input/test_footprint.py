"""What 300 abusive connections leave behind in the control plane: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random

import httpx

from snapshot.cache.type_url import CLUSTER
from tests.support import xds_client
from tests.support.running import LOOPBACK, eventually
from xds_server.app.control_plane import ControlPlane
from xds_server.config import load

ROUNDS = 60
HELLOS = (
    b"",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x00" * 500,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)


async def scribble(port, hello):
    """Connect, say something, and hang up after a moment or by a reset."""
    _, writer = await asyncio.open_connection(LOOPBACK, port)
    with contextlib.suppress(ConnectionError):
        writer.write(hello)
        await writer.drain()
    writer.transport.abort()


async def abuse(ports, open_channel, token):
    for number in range(ROUNDS):
        scribbles = [
            scribble(port, hello) for port, hello in zip(ports, random.sample(HELLOS, len(ports)), strict=True)
        ]
        channel = open_channel()
        stream = xds_client.XdsStream(channel, xds_client.DELTA_METHOD, token if number % 3 else "garbage")
        await stream.send(node=xds_client.node("default.nobody" if number % 2 else "nonsense"), type_url=CLUSTER)
        await asyncio.gather(stream.ended(), *scribbles)
        await channel.close()


async def test_a_process_keeps_its_descriptors(plane, neighbour):
    before = plane.descriptors()
    ports = [plane.ports[name] for name in ("xds", "dp", "rest", "diagnostics")]
    await abuse(ports, plane.channel, plane.token())
    await neighbour.is_served()
    await eventually(lambda: plane.descriptors() <= before + 1, "giving descriptors back")


async def test_a_loop_keeps_its_tasks(tmp_path, neighbour):
    variables = ("KUMA_API_SERVER_HTTP_PORT", "KUMA_DP_SERVER_PORT", "KUMA_XDS_SERVER_PORT")
    environ = {
        **dict.fromkeys((*variables, "KUMA_DIAGNOSTICS_SERVER_PORT"), "0"),
        "KUMA_API_SERVER_HTTPS_ENABLED": "false",
        "KUMA_GENERAL_WORK_DIR": str(tmp_path),
        "KUMA_STORE_TYPE": "memory",
    }
    bound = []
    control_plane = ControlPlane(load(environ=environ).config)
    serve = control_plane._serve_http

    async def noted(server, host, port, name):
        await serve(server, host, port, name)
        bound.append(server._socket.getsockname()[1])

    control_plane._serve_http = noted
    outside = asyncio.all_tasks()
    await control_plane.start()
    inside = asyncio.all_tasks() - outside
    async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{bound[-1]}") as rest:
        assert (await rest.get("/")).status_code == 200
    await asyncio.gather(*(scribble(port, hello) for port in bound for hello in HELLOS * 20))

    def settled():
        return len(asyncio.all_tasks() - outside) <= len(inside)

    await eventually(settled, "the tasks of the abusive connections ending")
    await control_plane.stop()
    await eventually(lambda: not asyncio.all_tasks() - outside, "all tasks ending")
