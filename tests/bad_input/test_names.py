"""A name that is taken: the second `kuma-dp run` is refused, naming both, and the first one notices nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json

import grpc
import httpx
import yaml

from snapshot.cache.type_url import CLUSTER
from tests.support.running import LOOPBACK, dataplane, eventually, free_port
from tests.support.xds_client import DELTA_METHOD, node

NAME = "popular"


def definition(service, admin_port):
    inbound = [{"port": free_port(), "servicePort": free_port(), "tags": {"kuma.io/service": service}}]
    return dataplane(NAME, inbound=inbound, admin={"port": admin_port})


def live(admin_port):
    try:
        return httpx.get(f"http://{LOOPBACK}:{admin_port}/ready", timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


def carrying(run_id):
    resource = json.dumps(dataplane(NAME, "popular"))
    return node(f"default.{NAME}", {"dataplane.resource": resource, "koguma.runId": run_id})


async def test_the_second_is_refused_until_the_first_has_ended(plane, open_stream, neighbour):
    first_port, second_port = free_port(), free_port()
    token = plane.token(name=NAME)
    first = plane.kuma_dp("first", yaml.safe_dump(definition("popular", first_port)), token)
    await eventually(lambda: live(first_port), "the first proxy becoming ready", 20)
    second = plane.kuma_dp("second", yaml.safe_dump(definition("popular", second_port)), token)
    try:
        refusal = f'the name "{NAME}" in mesh "default" is taken by kuma-dp run "'
        await eventually(lambda: not second.running, "the second kuma-dp ending", 20)
        line = next(line for line in second.log.read_text().splitlines() if refusal in line)
        assert line.count('kuma-dp run "') == 2, line
        assert "Stop the other one, or choose another name" in line
        assert live(first_port)
        await neighbour.is_served()
        stored = plane.rest.get(f"/meshes/default/dataplanes/{NAME}").json()
        assert stored["networking"]["admin"]["port"] == first_port
        first.stop()
        second = plane.kuma_dp("third", (plane.directory / "second.yaml").read_text(), token)
        await eventually(lambda: live(second_port), "the second proxy taking over", 20)
    finally:
        first.stop()
        second.stop()


async def test_a_name_is_refused_on_the_stream_within_a_moment(plane, open_stream):
    token = plane.token(name=NAME)
    await eventually(lambda: plane.rest.get(f"/meshes/default/dataplanes/{NAME}").status_code == 404, "a free name")
    first = open_stream(DELTA_METHOD, token)
    await first.send(node=carrying("one"), type_url=CLUSTER)
    await first.ack(await first.receive())
    second = open_stream(DELTA_METHOD, token)
    await second.send(node=carrying("two"), type_url=CLUSTER)
    code, text = await second.ended(1)
    assert code == "PERMISSION_DENIED"
    assert text.startswith(
        f'could not register dataplane passed in kuma-dp run: the name "{NAME}" in mesh "default" is taken by '
        'kuma-dp run "one" at '
    )
    assert 'refused is kuma-dp run "two" at ' in text
    first.cancel()
    for _ in range(20):  # as an Envoy does that is refused: it comes again
        third = open_stream(DELTA_METHOD, token)
        await third.send(node=carrying("two"), type_url=CLUSTER)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await third.receive()
            break
        await asyncio.sleep(0.1)
    assert not third.call.done()
