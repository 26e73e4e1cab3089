"""Counted by ourselves, and still what Prometheus reads."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from xds_server.tallies import Spread, Tally

VALUES = (0, 0.5, 1, 1.5, 9.99, 10, 11, 1e9)


def samples(registry: CollectorRegistry) -> set[tuple]:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (each.name, tuple(sorted(each.labels.items())), each.value)
        for family in families
        for each in family.samples
        if not each.name.endswith("_created")
    }


def test_a_spread_shows_what_the_librarys_histogram_shows():
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    spread = Spread("size", "sizes", "type_url", (1, 10), "here", ours)
    histogram = Histogram("size", "sizes", ["type_url", "zone"], buckets=(1, 10), registry=theirs)
    for value in VALUES:
        spread.observe(value, "a.B")
        histogram.labels("a.B", "here").observe(value)
    assert samples(ours) == samples(theirs)


def test_a_spread_without_a_label_is_there_from_the_start():
    registry = CollectorRegistry()
    Spread("wait", "waits", "", (1,), "here", registry)
    assert ("wait_count", (("zone", "here"),), 0.0) in samples(registry)


def test_a_tally_counts_each_combination_of_labels():
    registry = CollectorRegistry()
    tally = Tally("answers", "ACKs and NACKs", ("type_url", "confirmation"), "here", registry)
    for confirmation in ("ACK", "ACK", "NACK"):
        tally.add('quoted "\n\\', confirmation)
    assert {(dict(labels)["confirmation"], value) for _, labels, value in samples(registry)} == {
        ("ACK", 2.0),
        ("NACK", 1.0),
    }
