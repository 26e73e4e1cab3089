from __future__ import annotations

import io
import json
import logging

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from xds_server.telemetry import Telemetry, set_up_logging


@pytest.fixture(autouse=True)
def _logging_as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)
    structlog.reset_defaults()


def test_kumas_metrics_have_kumas_names():
    telemetry = Telemetry()
    telemetry.xds.opened()
    telemetry.xds.sent("type.googleapis.com/x", 100)
    telemetry.xds.received("type.googleapis.com/x", ack=False)
    telemetry.xds.generated(0.002)
    telemetry.hds.generation_failed()
    telemetry.store_operation("get", "Mesh", 0.001)
    telemetry.api.began("/meshes/{name}")
    telemetry.api.ended("/meshes/{name}", "GET", 200, 0.01, 100)
    telemetry.resources("Mesh", 3)
    telemetry.leader(leads=True)
    telemetry.info("host-1234", "uuid", "1.5.1")
    lines = telemetry.exposition().decode()
    for line in (
        'xds_streams_active{zone="Standalone"} 1.0',
        'xds_responses_sent{type_url="type.googleapis.com/x",zone="Standalone"} 1.0',
        'xds_requests_received{confirmation="NACK",type_url="type.googleapis.com/x",zone="Standalone"} 1.0',
        'xds_generation_sum{zone="Standalone"} 2.0',
        'hds_generation_errors{zone="Standalone"} 1.0',
        'store_count{operation="get",resource_type="Mesh",zone="Standalone"} 1.0',
        'resources_count{resource_type="Mesh",zone="Standalone"} 3.0',
        'leader{zone="Standalone"} 1.0',
    ):
        assert line in lines
    assert 'api_server_http_request_duration_seconds_count{code="200",handler="/meshes/{name}"' in lines
    assert list(text_string_to_metric_families(lines))


def test_the_zone_is_a_label():
    telemetry = Telemetry("east")
    telemetry.plaintext_on_tls(5677)
    assert 'koguma_plaintext_on_tls{port="5677",zone="east"} 1.0' in telemetry.exposition().decode()


def test_json_logs_are_one_object_a_line():
    out = io.StringIO()
    set_up_logging("info", "json", out)
    structlog.get_logger().info("started", port=5681)
    structlog.get_logger().debug("hidden")
    logging.getLogger("uvicorn").warning("from %s", "uvicorn")
    ours, theirs = (json.loads(line) for line in out.getvalue().splitlines())
    assert (ours["event"], ours["level"], ours["port"]) == ("started", "info", 5681)
    assert (theirs["event"], theirs["level"]) == ("from uvicorn", "warning")


@pytest.mark.parametrize("hostile", ["\x1b[2J", "a\nb", "\u202eevil", "\x00", "a\rb"])
def test_what_a_client_chose_can_neither_steer_a_terminal_nor_forge_a_line(hostile):
    out = io.StringIO()
    set_up_logging("info", "console", out)
    structlog.get_logger().info("refused", node=hostile)
    logging.getLogger("library").warning("said %s", hostile)
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert "refused" in lines[0]


def test_off_is_silent():
    out = io.StringIO()
    set_up_logging("off", "console", out)
    structlog.get_logger().error("nothing")
    logging.getLogger("x").critical("nothing")
    assert out.getvalue() == ""
