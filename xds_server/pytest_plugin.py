"""pytest plugin `koguma`: the `mesh` fixture, a control plane and real Envoys on free loopback ports.

    def test_orders_reach_the_database(mesh):
        database = mesh.tcp_service("database")
        orders = mesh.proxy("orders-1", service="orders", outbounds=["database"])
        assert mesh.redis_command(orders.port_of("database"), "PING") == "+PONG"

Settings of the control plane are given by `@pytest.mark.mesh_options(KUMA_…="…")`. Never here: fixtures of this
project's own tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xds_server.demo.mesh import TestMesh


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "mesh_options(**settings): environment of the control plane of the `mesh` fixture"
    )


@pytest.fixture
def mesh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TestMesh]:
    """A running control plane with the `default` mesh; everything started through it ends with the test."""
    from xds_server.demo.mesh import TestMesh  # noqa: PLC0415 - the plugin costs nothing where it is not used

    marker = request.node.get_closest_marker("mesh_options")
    with TestMesh(tmp_path, marker.kwargs if marker else None) as running:
        yield running
