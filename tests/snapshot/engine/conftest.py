"""Every test of the engine ends with a look at its bookkeeping."""

from __future__ import annotations

import pytest

from snapshot.engine.engine import Engine
from tests.support.worlds import Clients


@pytest.fixture
def engine():
    engine = Engine()
    yield engine
    engine.check_invariants()


@pytest.fixture
def clients(engine):
    return Clients(engine)
