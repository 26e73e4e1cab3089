"""How streams end, who is told what, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest

from snapshot.cache.resource import XdsResource
from snapshot.cache.snapshot import Changes
from snapshot.cache.type_url import CLUSTER, ENDPOINT
from snapshot.model.meta import ProxyKey
from tests.support.xds_client import DELTA_METHOD, SOTW_METHOD, node
from xds_server.ads.ports import Ending
from xds_server.ads.settings import AdsSettings

WEB = ProxyKey("default", "web.1")
NODE = node("default.web.1")
CLIENT = """
import sys, time, grpc
channel = grpc.secure_channel(
    "127.0.0.1:" + sys.argv[1], grpc.ssl_channel_credentials(sys.argv[2].encode()),
    options=[("grpc.ssl_target_name_override", "localhost")],
)
call = channel.stream_stream(sys.argv[3])(
    iter([bytes.fromhex(sys.argv[4])] + []) if sys.argv[5] == "half" else (
        message if number == 0 else time.sleep(1000)
        for number, message in enumerate([bytes.fromhex(sys.argv[4])] * 2)
    ), metadata=[("authorization", "token")],
)
next(call)
print("ready", flush=True)
time.sleep(1000)
"""


async def open_stream(harness, method=SOTW_METHOD, token="token"):  # noqa: S107  # invented
    harness.nodes.publish(WEB)
    stream = harness.stream(method, token)
    await stream.send(node=NODE, type_url=CLUSTER)
    await stream.receive()
    return stream


def process(harness) -> subprocess.Popen:
    """A client in a process of its own, with one stream open and answered."""
    from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest  # noqa: PLC0415

    harness.nodes.publish(WEB)
    first = DiscoveryRequest(node=NODE, type_url=CLUSTER).SerializeToString().hex()
    arguments = [str(harness.port), harness.pair.cert_pem.decode(), SOTW_METHOD, first, "open"]
    return subprocess.Popen([sys.executable, "-c", CLIENT, *arguments], stdout=subprocess.PIPE)


async def ready(client: subprocess.Popen) -> None:
    line = await asyncio.get_running_loop().run_in_executor(None, client.stdout.readline)
    assert line == b"ready\n"


@pytest.mark.rule("XP-7", "XP-8")
@pytest.mark.parametrize("how", ["half-close", "reset", "connection closed"])
async def test_a_peer_that_ends_its_stream_has_left(harness, how):
    stream = await open_stream(harness)
    match how:
        case "half-close":
            await stream.half_close()
        case "reset":
            stream.cancel()
        case "connection closed":
            await harness.channels.pop().close()
    await harness.until(lambda: harness.registrar.released == [("default.web.1", Ending.LEFT)])
    await harness.until(lambda: harness.server.open_streams == 0)
    assert (harness.nodes.handles, harness.authenticator.revocations) == ([], {})
    assert not harness.observer.records[0].open


@pytest.mark.rule("XP-8")
async def test_a_killed_client_has_left(harness):
    client = process(harness)
    await ready(client)
    client.kill()
    client.wait()
    client.stdout.close()
    await harness.until(lambda: harness.registrar.released == [("default.web.1", Ending.LEFT)])


@pytest.mark.rule("XP-8", "XP-136", "XP-145")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be asked for the state of a connection")
async def test_a_client_that_stops_answering_has_vanished(special):
    harness = await special(settings=AdsSettings(keepalive_s=0.4, ping_timeout_s=0.4, drain_s=0.1))
    client = process(harness)
    await ready(client)
    client.send_signal(19)  # SIGSTOP: the kernel still acknowledges, the program answers no ping
    try:
        await harness.until(lambda: harness.registrar.released == [("default.web.1", Ending.VANISHED)])
    finally:
        client.kill()
        client.wait()
        client.stdout.close()


@pytest.mark.rule("XP-149")
@pytest.mark.parametrize("method", [SOTW_METHOD, DELTA_METHOD])
async def test_revocation_ends_open_streams_within_a_second(harness, method):
    revoked, other = await open_stream(harness, method, "default.web.1"), await open_stream(harness, method, "any")
    harness.authenticator.revoke("default.web.1")
    assert await revoked.ended(1.0) == ("UNAUTHENTICATED", "token is revoked")
    await harness.until(lambda: harness.registrar.released == [("default.web.1", Ending.LEFT)])
    await other.half_close()
    assert (await other.ended())[0] == "OK"


@pytest.mark.rule("XP-17")
async def test_a_proxy_that_an_operator_deletes_loses_its_streams(harness):
    first, second = await open_stream(harness), await open_stream(harness)
    harness.dataplanes.put(WEB, object())
    harness.dataplanes.put(WEB, None)
    for stream in (first, second):
        assert await stream.ended() == ("NOT_FOUND", 'Dataplane "default.web.1" was deleted')
    await harness.until(lambda: harness.dataplanes.watchers == [])


async def test_another_owner_takes_over(harness):
    stream = await open_stream(harness)
    harness.registrar.ended["default.web.1"]("another kuma-dp registered this name")
    assert await stream.ended() == ("PERMISSION_DENIED", "another kuma-dp registered this name")


@pytest.mark.rule("XP-113")
async def test_an_error_of_ours_ends_one_stream_and_is_logged_with_its_node(harness):
    class Broken:
        def get(self, _type_url, _name):
            raise RuntimeError("broken state")

        def names(self, _type_url):
            raise RuntimeError("broken state")

    bystander = await open_stream(harness)
    victim = harness.stream(SOTW_METHOD, "any")
    harness.nodes.states[ProxyKey("default", "web.2")] = Broken()
    await victim.send(node=node("default.web.2"), type_url=CLUSTER)
    code, text = await victim.ended()
    assert (code, "broken" in text) == ("INTERNAL", False)
    assert harness.observer.counts["failed"] == 1
    assert harness.observer.lines[-1][2]["node"] == "default.web.2"
    await harness.until(lambda: ("default.web.2", Ending.SHUTDOWN) in harness.registrar.released)
    harness.nodes.publish(WEB, XdsResource(CLUSTER, "a", b"\x0a\x01a"))
    await bystander.half_close()
    assert (await bystander.ended())[0] == "OK"


@pytest.mark.rule("XP-113")
async def test_an_error_while_publishing_ends_one_stream(harness):
    stream, other = await open_stream(harness), await open_stream(harness)
    broken = Changes({None: frozenset("x")})
    object.__setattr__(broken, "names", None)
    harness.nodes.handles[0].listener(broken)
    assert (await stream.ended())[0] == "INTERNAL"
    await other.half_close()
    assert (await other.ended())[0] == "OK"


@pytest.mark.rule("XP-141", "XP-142")
async def test_shutdown_spreads_the_ends_and_deletes_nothing(special):
    harness = await special(settings=AdsSettings(drain_s=1.0))
    answered = [await open_stream(harness) for _ in range(4)]
    waiting = harness.stream(SOTW_METHOD, "any")
    await waiting.send(node=node("default.late"), type_url=CLUSTER)
    await harness.until(lambda: len(harness.nodes.handles) == 5)
    began_s = time.monotonic()
    moments = {}

    async def watch(name, stream):
        status = await stream.ended()
        moments[name] = time.monotonic() - began_s
        return status

    watching = [watch(number, stream) for number, stream in enumerate(answered)] + [watch("late", waiting)]
    statuses, _ = await asyncio.gather(asyncio.gather(*watching), harness.server.stop())
    assert {code for code, _ in statuses} == {"UNAVAILABLE"}
    assert max(moments, key=moments.get) == "late"
    assert max(moments.values()) - min(moments.values()) > 0.3
    assert time.monotonic() - began_s < 3
    assert {how for _, how in harness.registrar.released} == {Ending.SHUTDOWN}


@pytest.mark.rule("XP-119", "XP-120", "XP-126")
async def test_a_client_that_reads_nothing_is_ended_and_delays_nobody(special):
    harness = await special(settings=AdsSettings(write_timeout_s=0.5, drain_s=0.1))
    harness.nodes.publish(
        WEB, *(XdsResource(ENDPOINT, f"{number}", b"\x0a" + b"\x80\x80\x40" + b"x" * (1 << 20)) for number in range(30))
    )
    stuck = harness.stream(DELTA_METHOD)
    await stuck.send(node=NODE, type_url=ENDPOINT, resource_names_subscribe=[f"{number}" for number in range(30)])
    await harness.until(lambda: harness.nodes.handles)
    other = harness.stream(SOTW_METHOD)
    began_s = time.monotonic()
    await other.send(node=NODE, type_url=CLUSTER)
    await other.receive()
    assert time.monotonic() - began_s < 0.3
    await harness.until(lambda: harness.observer.counts["stuck"] == 1)
    await harness.until(lambda: harness.registrar.released == [("default.web.1", Ending.VANISHED)])
    assert (await stuck.ended())[0] == "RESOURCE_EXHAUSTED"
    await other.half_close()
    assert (await other.ended())[0] == "OK"


@pytest.mark.rule("XP-152")
async def test_requests_above_the_rate_are_slowed(special):
    harness = await special(settings=AdsSettings(requests_per_s=20, drain_s=0.1))
    stream = await open_stream(harness)
    began_s = time.monotonic()
    for number in range(40):
        await stream.send(type_url=f"type.googleapis.com/x.Y{number % 2}", resource_names=["a"])
    await stream.send(type_url="")
    assert (await stream.ended())[0] == "INVALID_ARGUMENT"
    assert time.monotonic() - began_s > 0.8
    assert harness.observer.counts["slowed"] > 10


async def churn(harness, cycles: int) -> None:
    channel = harness.channel()
    for number in range(cycles):
        stream = harness.stream(SOTW_METHOD if number % 2 else DELTA_METHOD, channel=channel)
        await stream.send(node=NODE, type_url=CLUSTER)
        await stream.receive()
        if number % 3:
            stream.cancel()
        else:
            await stream.half_close()
            await stream.ended()


@pytest.mark.rule("XP-8", "XP-184", "XP-185")
@pytest.mark.parametrize("cycles", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_cycles_of_connect_and_disconnect_leave_nothing(harness, cycles):
    harness.nodes.publish(WEB)
    await churn(harness, 10)
    await harness.until(lambda: harness.server.open_streams == 0)
    before = len(asyncio.all_tasks())
    await asyncio.gather(*(churn(harness, cycles // 20) for _ in range(20)))
    await harness.until(lambda: harness.server.open_streams == 0)
    await asyncio.sleep(0.2)
    assert len(asyncio.all_tasks()) <= before
    assert (harness.registrar.open, harness.nodes.handles, harness.authenticator.revocations) == ([], [], {})
    assert not any(record.open for record in harness.observer.records)
    parts = harness.server._parts
    assert (parts.open_sessions, parts.admission._streams, parts.writes._writing) == ({}, {}, {})
    assert harness.server._connections._peers == {}


async def test_a_peer_that_reacts_to_the_shutdown_keeps_its_registration(special):
    harness = await special(settings=AdsSettings(drain_s=1.0))
    stream, _ = await open_stream(harness), await open_stream(harness)
    stopping = asyncio.ensure_future(harness.server.stop())
    await asyncio.sleep(0.05)
    await stream.half_close()
    await stopping
    assert {how for _, how in harness.registrar.released} == {Ending.SHUTDOWN}
