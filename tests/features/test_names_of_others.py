"""A proxy that guesses names gets nothing by it (XP-148): what is not its own does not exist for it."""

from __future__ import annotations

import pytest

from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET

WEB = """
type: Dataplane
mesh: default
name: web-1
networking:
  address: 192.168.0.1
  inbound: [{port: 8000, tags: {kuma.io/service: web}}]
"""
OTHERS = """
type: Mesh
name: other
---
type: Dataplane
mesh: default
name: redis-1
networking:
  address: 192.168.0.2
  inbound: [{port: 9000, servicePort: 6379, tags: {kuma.io/service: redis}}]
  outbound: [{port: 10000, tags: {kuma.io/service: web}}]
---
type: Dataplane
mesh: other
name: db-1
networking:
  address: 192.168.0.3
  inbound: [{port: 9000, tags: {kuma.io/service: db}}]
---
type: Secret
mesh: default
name: password
data: aHVudGVyMg==
"""
GUESSES = {
    SECRET: ["password", "default/password", "cp_validation_ctx", "kuma:envoy:admin", "identity_cert:secret:default"],
    ENDPOINT: ["redis", "db"],
    CLUSTER: ["redis", "localhost:6379"],
    LISTENER: ["inbound:192.168.0.2:9000", "outbound:127.0.0.1:10000"],
    ROUTE: ["web", "outbound:web"],
}


@pytest.mark.rule("XP-148", "XP-35")
async def test_a_guessed_name_is_absent_in_delta(mesh):
    await mesh.apply(WEB)
    await mesh.apply(OTHERS)
    proxy = mesh.proxy("web-1", delta=True)
    for type_url, guesses in GUESSES.items():
        await proxy.ask(type_url, *guesses)
        told = set()
        while not told >= set(guesses):
            response = await proxy.stream.receive()
            if response.type_url == type_url:
                told |= set(response.removed_resources)
                assert not {resource.name for resource in response.resources} & set(guesses)
            await proxy.stream.ack(response)


@pytest.mark.rule("XP-148")
async def test_a_guessed_name_is_empty_or_unanswered_in_sotw(mesh):
    await mesh.apply(WEB)
    await mesh.apply(OTHERS)
    proxy = mesh.proxy("web-1", delta=False)
    for type_url, guesses in GUESSES.items():
        await proxy.ask(type_url, *guesses)
    await proxy.ask("type.googleapis.com/nothing.Known")
    seen = []
    while len(seen) < 3:
        response = await proxy.stream.receive()
        seen.append(response.type_url)
        content = b"".join(resource.value for resource in response.resources)
        assert not any(secret in content for secret in (b"192.168", b"hunter2", b"6379"))
    assert set(seen) == {CLUSTER, LISTENER, ENDPOINT}
    assert await proxy.stream.silent()


@pytest.mark.rule("XP-148")
async def test_sds_gives_nobody_anything(mesh, delta):
    await mesh.apply(WEB)
    await mesh.apply(OTHERS)
    proxy = mesh.proxy("web-1", delta=delta)
    await proxy.ask(SECRET, "*", "password")
    if delta:
        response = await proxy.stream.receive()
        assert (list(response.resources), list(response.removed_resources)) == ([], ["password"])
    else:
        response = await proxy.stream.receive()
        assert list(response.resources) == []
    await proxy.stream.ack(response, **({} if delta else {"resource_names": ["*", "password"]}))
    assert await proxy.stream.silent()
