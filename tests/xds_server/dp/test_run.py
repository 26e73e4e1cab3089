"""`kuma-dp run` from the command line to Envoy's: real process, real TLS, real exec."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from xds_server.dp.envoy_binary import find


def _port_nobody_has() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_it_becomes_envoy_with_the_bootstrap_in_memory(kuma_dp, dp_server) -> None:
    done = kuma_dp.run()
    assert done.returncode == 0, done.stderr
    argv = kuma_dp.recorded("argv").splitlines()
    assert argv[0] == "--config-path"
    assert argv[1].startswith("/dev/fd/")
    assert argv[2:] == ["--drain-time-s", "30", "--disable-hot-restart", "--log-level", "info"]
    assert json.loads(kuma_dp.recorded("config"))["node"] == {"id": "default.backend-1"}
    assert int(kuma_dp.recorded("pid")) == kuma_dp.pid
    assert dp_server.pem.read_text() not in kuma_dp.recorded("config")


def test_an_older_envoy_is_told_to_count_its_cpu_set(kuma_dp) -> None:
    assert kuma_dp.run(ENVOY_VERSION="1.39.1").returncode == 0
    assert kuma_dp.recorded("argv").splitlines()[-1] == "--cpuset-threads"
    kuma_dp.run("--concurrency=2", ENVOY_VERSION="1.39.1")
    assert "--cpuset-threads" not in kuma_dp.recorded("argv")


def test_a_variable_without_a_value_is_said_before_the_control_plane_refuses(kuma_dp, dp_server) -> None:
    dp_server.answers = [(422, "networking.address: address can't be empty")]
    address = kuma_dp.usual.index("address=127.0.0.1")
    usual = kuma_dp.usual[: address - 1] + kuma_dp.usual[address + 1 :]
    done = kuma_dp.run(*usual, usual=False)
    assert done.returncode == 1
    assert "WARNING: " in done.stderr
    assert "no value was given for {{ address }}" in done.stderr


def test_a_name_that_cannot_be_is_refused_before_the_control_plane_is_asked(kuma_dp, dp_server) -> None:
    done = kuma_dp.run("--name=A.b", "--mesh=default", kuma_dp.usual[0], *kuma_dp.usual[-2:], usual=False)
    assert (done.returncode, dp_server.requests) == (1, [])
    assert done.stderr.startswith("Error: --name: invalid characters")


def test_the_request_is_kumas_with_our_keys_at_its_end(kuma_dp, dp_server) -> None:
    kuma_dp.run("--xds-protocol=sotw")
    (request,) = dp_server.requests
    resource = json.loads(request.pop("dataplaneResource"))
    assert resource["name"] == "backend-1"
    assert resource["creationTime"] == "0001-01-01T00:00:00Z"
    assert resource["networking"]["inbound"][0]["tags"] == {"kuma.io/service": "backend"}
    run_id = request.pop("runId")
    version = request.pop("version")
    assert version["kumaDp"]["version"] == "1.5.1"
    assert version["envoy"] == {"version": "1.40.0", "build": "abc/1.40.0/Clean/RELEASE/BoringSSL"}
    request.pop("adminPort", None)
    assert request.pop("cpPin")
    assert request == {
        "mesh": "default",
        "name": "backend-1",
        "proxyType": "dataplane",
        "dataplaneToken": kuma_dp.token.read_text(),
        "caCert": "",
        "dynamicMetadata": {"koguma.helpers": "none", "koguma.runId": run_id},
        "bootstrapVersion": "3",
        "dnsPort": 15054,
        "emptyDnsPort": 15055,
        "xdsProtocol": "sotw",
    }


@pytest.mark.parametrize(
    ("flags", "environment", "expected"),
    [
        (["--concurrency=3"], {}, ["--concurrency", "3"]),
        (["--concurrency=3"], {"KUMA_DATAPLANE_RUNTIME_CONCURRENCY": "5"}, ["--concurrency", "5"]),
        ([], {"KUMA_DATAPLANE_DRAIN_TIME": "1m30s"}, ["--drain-time-s", "90"]),
        (["--log-level=debug"], {}, ["--log-level", "debug"]),
    ],
    ids=["flag", "environment-over-flag", "drain-time", "log-level"],
)
def test_what_reaches_envoys_command_line(kuma_dp, flags, environment, expected) -> None:
    done = kuma_dp.run(*flags, **environment)
    argv = kuma_dp.recorded("argv").splitlines()
    assert done.returncode == 0
    assert argv[argv.index(expected[0]) + 1] == expected[1]


def test_a_config_dir_gets_the_bootstrap_unchanged_for_the_owner_only(kuma_dp, dp_server, tmp_path) -> None:
    kuma_dp.run(f"--config-dir={tmp_path / 'conf'}")
    written = tmp_path / "conf" / "bootstrap.yaml"
    assert kuma_dp.recorded("argv").splitlines()[1] == str(written)
    assert written.read_text() == dp_server.answers[0][1]
    assert written.stat().st_mode & 0o777 == 0o600


def test_a_bootstrap_that_was_there_before_is_closed_to_others_and_a_link_is_not_followed(kuma_dp, tmp_path) -> None:
    written, elsewhere = tmp_path / "bootstrap.yaml", tmp_path / "elsewhere"
    written.write_text("")
    written.chmod(0o644)
    kuma_dp.run(f"--config-dir={tmp_path}")
    assert written.stat().st_mode & 0o777 == 0o600
    written.unlink()
    written.symlink_to(elsewhere)
    done = kuma_dp.run(f"--config-dir={tmp_path}")
    assert (done.returncode, elsewhere.exists()) == (1, False)
    assert "bootstrap.yaml cannot be written" in done.stderr


def test_an_inline_token_does_not_stay_in_envoys_environment(kuma_dp, dp_server) -> None:
    token = kuma_dp.token.read_text()
    done = kuma_dp.run(*kuma_dp.without_token, usual=False, KUMA_DATAPLANE_RUNTIME_TOKEN=token)
    assert done.returncode == 0, done.stderr
    assert dp_server.requests[0]["dataplaneToken"] == token
    assert token not in kuma_dp.recorded("environment")


def test_a_stored_dataplane_is_named_by_mesh_and_name(kuma_dp, dp_server) -> None:
    token = f"--dataplane-token-file={kuma_dp.token}"
    flags = ["--name=backend-1", "--mesh=default", kuma_dp.usual[0], token, kuma_dp.usual[-1]]
    assert kuma_dp.run(*flags, usual=False).returncode == 0
    assert dp_server.requests[0]["name"] == "backend-1"
    assert dp_server.requests[0]["dataplaneResource"] == ""


class TestAnAbsentControlPlane:
    def test_is_asked_again_until_it_answers(self, kuma_dp, dp_server) -> None:
        dp_server.answers = [(404, ""), (503, "not yet"), (429, "slow down"), dp_server.answers[0]]
        done = kuma_dp.run()
        assert done.returncode == 0
        assert len(dp_server.requests) == 4
        assert "does not know this Dataplane yet" in done.stderr
        assert "answered 503 not yet; trying again in" in done.stderr

    def test_is_given_up_after_the_time_allowed(self, kuma_dp) -> None:
        flags = [f"--cp-address=https://127.0.0.1:{_port_nobody_has()}", *kuma_dp.usual[1:]]
        done = kuma_dp.run(*flags, usual=False, KUMA_CONTROL_PLANE_RETRY_MAX_DURATION="300ms")
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith("Error: https://127.0.0.1:")
        assert last.endswith("Connection refused; gave up after 0.3 s")

    def test_is_not_waited_for_after_ctrl_c(self, kuma_dp, dp_server) -> None:
        dp_server.answers = [(503, "")]
        with kuma_dp.popen(KUMA_CONTROL_PLANE_RETRY_MAX_DURATION="1h") as process:
            line = process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, rest = process.communicate(timeout=10)
        assert "trying again" in line
        assert process.returncode == 130
        assert rest.splitlines()[-1] == "kuma-dp: interrupted"
        assert "Traceback" not in rest


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (422, 'mesh: mesh "x" does not exist', 'Invalid request: mesh: mesh "x" does not exist'),
        (401, "token is revoked", "Invalid request: token is revoked"),
        (400, "", "Invalid request: Bad Request"),
        (404, "404: Page Not Found", "this is the control plane's REST port"),
        (
            404,
            "404 page not found",
            "has no bootstrap (404 page not found); --cp-address is the control plane's",
        ),
        (400, "Client sent an HTTP request to an HTTPS server.", "wants TLS; --cp-address is the control plane's"),
    ],
)
def test_a_refusal_ends_at_once_with_what_the_control_plane_said(kuma_dp, dp_server, status, body, said) -> None:
    dp_server.answers = [(status, body)]
    done = kuma_dp.run()
    assert done.returncode == 1
    assert len(dp_server.requests) == 1
    assert said in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")


def test_a_port_without_tls_is_named_as_such(kuma_dp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = kuma_dp.popen(
            f"--cp-address=https://127.0.0.1:{listener.getsockname()[1]}", *kuma_dp.usual[1:], usual=False
        )
        with process:
            peer, _ = listener.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                _, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "does not speak TLS; --cp-address is the control plane's DP server" in err


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def _port_of_envoy(kuma_dp) -> int:
    address = json.loads(kuma_dp.recorded("config")).get("admin", {}).get("address", {})
    return address.get("socketAddress", {}).get("portValue", 0)


class TestTheAdminPort:
    def test_is_the_control_planes_whatever_else_is_taken(self, kuma_dp, dp_server) -> None:
        dp_server.admin_port = _port_nobody_has()
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", 9901)):
            assert kuma_dp.run().returncode == 0
        assert _port_of_envoy(kuma_dp) == dp_server.admin_port
        assert ["adminPort" in request for request in dp_server.requests] == [False]

    def test_stays_off_where_the_control_plane_wants_none(self, kuma_dp, dp_server) -> None:
        dp_server.admin_port = 0
        done = kuma_dp.run()
        assert (done.returncode, _port_of_envoy(kuma_dp)) == (0, 0)
        assert ["adminPort" in request for request in dp_server.requests] == [False]
        assert "admin on port none" in done.stderr

    @pytest.mark.parametrize("where", ["127.0.0.1", "127.0.0.2"], ids=["loopback", "where the Dataplane listens"])
    def test_moves_when_that_of_the_control_plane_is_taken(self, kuma_dp, dp_server, where) -> None:
        kuma_dp.dataplane.write_text(kuma_dp.dataplane.read_text().replace("{{ address }}", "127.0.0.2"))
        with socket.create_server((where, 0)) as taken:
            dp_server.admin_port = taken.getsockname()[1]
            assert kuma_dp.run().returncode == 0
        first, second = dp_server.requests
        assert "adminPort" not in first
        assert _port_of_envoy(kuma_dp) == second["adminPort"] not in {0, dp_server.admin_port}

    def test_moves_when_the_dataplane_itself_needs_that_of_the_control_plane(self, kuma_dp, dp_server) -> None:
        dp_server.admin_port = 8000
        assert kuma_dp.run().returncode == 0
        assert _port_of_envoy(kuma_dp) not in {0, 8000}

    def test_that_the_dataplane_names_is_not_asked_for(self, kuma_dp, dp_server) -> None:
        port, dp_server.admin_port = _port_nobody_has(), 9901
        kuma_dp.dataplane.write_text(kuma_dp.dataplane.read_text() + f"  admin: {{port: {port}}}\n")
        done = kuma_dp.run("--admin-port=1-65535")
        assert (done.returncode, _port_of_envoy(kuma_dp)) == (0, port)
        assert "adminPort" not in dp_server.requests[0]
        assert f"--admin-port 1-65535 has no effect: the Dataplane says networking.admin.port: {port}" in done.stderr

    def test_that_the_dataplane_names_and_another_has_is_an_error_here(self, kuma_dp, dp_server, taken_port) -> None:
        kuma_dp.dataplane.write_text(kuma_dp.dataplane.read_text() + f"  admin: {{port: {taken_port}}}\n")
        done = kuma_dp.run()
        assert (done.returncode, dp_server.requests) == (1, [])
        assert f"Error: port {taken_port} for Envoy's admin is taken" in done.stderr
        assert "set another networking.admin.port in Dataplane default.backend-1" in done.stderr

    def test_that_a_stored_dataplane_names_and_another_has_is_an_error_too(
        self, kuma_dp, dp_server, taken_port
    ) -> None:
        dp_server.answers = [(200, f"admin: {{address: {{socketAddress: {{portValue: {taken_port}}}}}}}")]
        done = kuma_dp.run("--name=backend-1", "--mesh=default", kuma_dp.usual[0], *kuma_dp.usual[-2:], usual=False)
        assert (done.returncode, len(dp_server.requests)) == (1, 2)
        assert f"Error: port {taken_port} for Envoy's admin is taken" in done.stderr

    def test_of_a_flag_is_asked_for(self, kuma_dp, dp_server) -> None:
        free, dp_server.admin_port = _port_nobody_has(), 0
        done = kuma_dp.run(f"--admin-port={free}")
        assert dp_server.requests[0]["adminPort"] == _port_of_envoy(kuma_dp) == free
        assert "--admin-port is deprecated" in done.stderr

    def test_of_a_flag_that_another_has_is_an_error_here(self, kuma_dp, dp_server, taken_port) -> None:
        done = kuma_dp.run(f"--admin-port={taken_port}")
        assert (done.returncode, dp_server.requests) == (1, [])
        assert f'unable to find a free port in the range "{taken_port}" for Envoy Admin API' in done.stderr
        assert "give another --admin-port" in done.stderr


def test_two_proxies_of_one_host_start_together(two_kuma_dps, dp_server) -> None:
    """Both find the control plane's port free; a claim that lasts over exec keeps their Envoys apart."""
    dp_server.admin_port = _port_nobody_has()
    real = f"--binary-path={find('')}"
    processes = [dp.popen(*dp.usual[:-1], real, usual=False) for dp in two_kuma_dps]
    try:
        started = [_until_it_serves(process) for process in processes]
    finally:
        for process in processes:
            _end(process)
    ports = [re.search(r"admin address: 127\.0\.0\.1:(\d+)", text)[1] for text in started]
    assert len(set(ports)) == 2, started
    assert str(dp_server.admin_port) in ports
    assert not [line for text in started for line in text.splitlines() if "cpuset" in line]


def _until_it_serves(process: subprocess.Popen[str]) -> str:
    """What it said until Envoy served."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "starting main dispatch loop" in line:
            break
    return "".join(lines)


def _end(process: subprocess.Popen[str]) -> None:
    with process:
        process.terminate()
        process.communicate(timeout=20)


def test_a_real_envoy_reads_the_bootstrap_from_memory(kuma_dp, dp_server) -> None:
    port = _port_nobody_has()
    dp_server.answers = [(200, dp_server.answers[0][1].replace("19901", str(port)))]
    process = kuma_dp.popen(*kuma_dp.usual[:-1], f"--binary-path={find('')}", "--concurrency=1", usual=False)
    said = _until_it_serves(process)
    _end(process)
    assert "starting main dispatch loop" in said
    assert process.returncode == 0, said


def test_without_helpers_it_says_what_kumas_control_plane_counts_on(kuma_dp, dp_server) -> None:
    dp_server.answers = [(200, "staticResources: {clusters: [{name: access_log_sink}]}")]
    assert "helper processes: access logs to TCP and merged metrics will not work" in kuma_dp.run().stderr


def test_settings_without_effect_are_named(kuma_dp) -> None:
    done = kuma_dp.run("--dns-coredns-path=/bin/coredns", "--bootstrap-version=2", KUMA_DNS_PROMETHEUS_PORT="1")
    assert done.returncode == 0
    for flag in ("--dns-coredns-path", "--bootstrap-version", "--dns-prometheus-port"):
        assert f"{flag} has no effect: " in done.stderr


@pytest.mark.parametrize("command", ["run --help", "version"])
def test_starting_up_loads_no_grpc_no_envoy_no_store(command: str) -> None:
    program = f"""
import sys
from xds_server.dp.main import main
try:
    main({command.split()!r})
except SystemExit:
    pass
heavy = ("grpc", "envoy", "google", "sqlalchemy", "httpx", "typer", "rich", "cryptography", "snapshot", "asyncio")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_no_envoy_is_an_error_with_the_ways_to_get_one(kuma_dp, tmp_path: Path) -> None:
    done = kuma_dp.run(*kuma_dp.usual[:-1], f"--binary-path={tmp_path / 'nothing'}", usual=False)
    assert done.returncode == 1
    assert "koguma[envoy]" in done.stderr


def test_a_binary_that_is_no_envoy_is_refused(kuma_dp) -> None:
    kuma_dp.envoy.write_text("#!/bin/sh\necho hello\n")
    done = kuma_dp.run()
    assert done.returncode == 1
    assert "it is no Envoy" in done.stderr
