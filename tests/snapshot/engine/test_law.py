"""The law of the engine: after any changes, in batches of any size, it serves what the oracle builds from nothing."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from snapshot.engine.engine import Engine
from snapshot.engine.oracle import build_all
from tests.support.worlds import Clients, content, histories


def obeys_the_law(history):
    engine = Engine()
    clients = Clients(engine)
    for batch in history:
        clients.apply(batch)
        engine.check_invariants()
        wanted = build_all(engine.world)
        for proxy in engine.world.nodes:
            assert content(engine, proxy) == wanted.get(proxy)
            if proxy in wanted:
                assert clients.held[proxy] == wanted[proxy]


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories())
def test_incremental_equals_oracle_equals_what_clients_hold(history):
    obeys_the_law(history)


@pytest.mark.slow
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories(max_batches=30))
def test_the_same_over_long_histories(history):
    obeys_the_law(history)
