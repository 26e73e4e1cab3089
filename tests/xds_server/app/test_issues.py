"""What has no effect is told once when it begins and once when it ends."""

import asyncio

import pytest
import structlog

from snapshot.engine.world import Issue
from snapshot.model.meta import ProxyKey, ResourceKey
from xds_server.app.issues import SHOWN, IssueLog

ROUTE = Issue(ResourceKey("TrafficRoute", "default", "r"), "conf.loadBalancer: cannot be", ProxyKey("default", "a"))


def events(captured):
    return [(line["event"], line.get("name"), line.get("others")) for line in captured]


def test_each_issue_is_told_when_it_begins_and_when_it_ends():
    issues, counts = [ROUTE], []
    log = IssueLog(lambda: issues, counts.append)
    with structlog.testing.capture_logs() as captured:
        log.look()
        log.look()
        issues.clear()
        log.look()
    begins, ends = captured
    assert begins["event"] == "an object has no effect, or only in part"
    assert (begins["type"], begins["name"], begins["proxy"], begins["reason"]) == (
        "TrafficRoute",
        "r",
        "default.a",
        "conf.loadBalancer: cannot be",
    )
    assert ends["event"] == "an object has its effect again, or is gone"
    assert counts == [1, 1, 0]


def test_a_flood_of_issues_writes_a_bounded_number_of_lines():
    issues = [Issue(ResourceKey("Dataplane", "default", f"d{number}"), "why") for number in range(SHOWN + 30)]
    with structlog.testing.capture_logs() as captured:
        IssueLog(lambda: issues, lambda _count: None).look()
    assert len(captured) == SHOWN + 1
    assert captured[-1]["others"] == 30


async def test_many_builds_are_one_look(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("xds_server.app.issues.LOOK_S", 0.01)
    looks, looked = [], asyncio.Event()
    log = IssueLog(lambda: looks.append(1) or (), lambda _count: looked.set())
    for _ in range(5):
        log.built()
    async with asyncio.timeout(5):
        await looked.wait()
    log.built()
    log.stop()
    assert looks == [1]
