"""How long the engine takes: `pytest perf/engine.py --benchmark-only`. Targets: T7 and T8 of the design.

A mesh of 10,000 proxies and 1000 services, 10 outbounds each. Replicas differ only in their address, and a service is
reached at the same local port everywhere.
"""

from __future__ import annotations

from itertools import count

import pytest

from snapshot.engine.engine import Engine
from snapshot.engine.node import changed_names
from snapshot.engine.world import NodeJoined
from snapshot.model.dataplane import Outbound
from snapshot.model.meta import ProxyKey
from tests.support.worlds import (
    ADMIN,
    connect_timeout,
    dataplane,
    dataplane_put,
    inbound,
    mesh_put,
    outbounds,
    put,
    route_all,
    tags,
)

PROXIES = 10_000
SERVICES = 1000
OUTBOUNDS = 10


def name_of(at):
    return f"proxy-{at}"


def spec_of(at, ready=True, port=8000):
    service = at % SERVICES
    wanted = ((service * 7 + step) % SERVICES for step in range(1, OUTBOUNDS + 1))
    to = [Outbound(port=10_000 + other, tags=tags(f"service-{other}")) for other in wanted]
    own = inbound(f"service-{service}", "http", port=port, ready=ready)
    return dataplane(f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}", own, to=to)


def stored():
    return [mesh_put(), route_all(), *(dataplane_put(name_of(at), spec_of(at)) for at in range(PROXIES))]


@pytest.fixture(scope="module")
def engine():
    engine = Engine()
    engine.apply(stored())
    engine.apply([NodeJoined(ProxyKey("default", name_of(at)), ADMIN) for at in range(PROXIES)])
    return engine


def test_start_with_stored_dataplanes(benchmark):
    changes = stored()
    benchmark.pedantic(lambda: Engine().apply(changes), rounds=3)
    benchmark.extra_info["proxies"] = PROXIES


def test_everybody_joins(benchmark):
    def setup():
        engine = Engine()
        engine.apply(stored())
        return (engine, [NodeJoined(ProxyKey("default", name_of(at)), ADMIN) for at in range(PROXIES)]), {}

    benchmark.pedantic(lambda engine, changes: engine.apply(changes), setup=setup, rounds=2)


def test_one_endpoint_flips(engine, benchmark):
    """A Dataplane that has not joined, so that nothing but the endpoint is at stake."""
    turns = count()

    def flip():
        ready = next(turns) % 2 == 0
        return engine.apply(
            [dataplane_put("bystander", dataplane("10.250.0.1", inbound("service-1", "http", ready=ready)))]
        )

    work = benchmark(flip).work
    assert (work.proxies_routed, work.endpoints_built) == (0, 1)


def test_own_dataplane_changes(engine, benchmark):
    turns = count()
    work = benchmark(lambda: engine.apply([dataplane_put(name_of(5), spec_of(5, port=8000 + next(turns) % 7))])).work
    assert work.proxies_built == 1


def test_mesh_wide_policy_changes(engine, benchmark):
    turns = count(1)
    work = benchmark.pedantic(
        lambda: engine.apply([put("Timeout", "all", connect_timeout(next(turns)))]), rounds=4
    ).work
    assert work.proxies_built == PROXIES


def test_policy_of_one_service_changes(engine, benchmark):
    turns = count(1)
    work = benchmark.pedantic(
        lambda: engine.apply([put("Timeout", "one", connect_timeout(1000 + next(turns), sources="service-3"))]),
        rounds=4,
    ).work
    assert work.proxies_built == PROXIES // SERVICES


@pytest.mark.parametrize("size", [10, 1000])
def test_difference_of_snapshots(benchmark, size):
    """One of `size` outbounds changed."""
    engine = Engine()
    to = outbounds(*(f"service-{at}" for at in range(size)))
    engine.apply([mesh_put(), route_all(), dataplane_put("p", dataplane("10.0.0.1", inbound("web"), to=to))])
    engine.apply([NodeJoined(ProxyKey("default", "p"), ADMIN)])
    old = engine.state(ProxyKey("default", "p")).built
    engine.apply([put("Timeout", "one", connect_timeout(7, destinations="service-1"))])
    new = engine.state(ProxyKey("default", "p")).built
    assert sum(map(len, benchmark(changed_names, old, new).values())) == 2
