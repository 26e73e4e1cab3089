"""Control planes as processes, ended after their test whatever it did to them."""

from __future__ import annotations

import contextlib

import pytest

from tests.support.running import RunningControlPlane


@pytest.fixture
def plane_of(tmp_path):
    """`plane_of(**settings)`: a control plane over `tmp_path`, not started yet."""
    planes = []

    def make(directory=tmp_path, **settings):
        planes.append(RunningControlPlane(directory, settings))
        return planes[-1]

    yield make
    for plane in planes:
        plane.kill()
        plane.rest.close()


@pytest.fixture
def plane(plane_of):
    """A running control plane with Kuma's defaults, on free ports."""
    running = plane_of()
    running.start()
    yield running
    with contextlib.suppress(AssertionError):
        running.stop()
