import pytest

from tests.support.clock import FakeClock
from tests.support.stores import STORES, opened


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(params=STORES)
async def store(request, tmp_path, clock):
    made = await opened(request.param, tmp_path, clock)
    yield made
    await made.close()
