"""The front of `kuma-cp`: settings become one Config, faults are listed, health asks the diagnostics port."""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import ModuleType

import pytest

from xds_server.cli import kuma_cp


@pytest.fixture
def kuma_cp_command(capsys, monkeypatch):
    """Run kuma-cp; (exit status, stdout, stderr)."""

    def command(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kuma-cp", *argv])
        with pytest.raises(SystemExit) as ended:
            kuma_cp.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return command


@pytest.fixture
def served(monkeypatch):
    """What the control plane was started with; it ends at once with status 3."""
    configs = []
    app = ModuleType("xds_server.app")
    app.main = lambda config: configs.append(config) or 3
    monkeypatch.setitem(sys.modules, "xds_server.app", app)
    return configs


def test_flags_win_over_the_environment_and_that_over_the_file(kuma_cp_command, served, monkeypatch, tmp_path) -> None:
    (tmp_path / "cp.yaml").write_text("dpServer: {port: 1001}\nxdsServer: {port: 1002}\ngeneral: {workDir: /file}\n")
    monkeypatch.setenv("KUMA_XDS_SERVER_PORT", "1003")
    monkeypatch.setenv("KUMA_GENERAL_WORK_DIR", "/environment")
    assert kuma_cp_command("run", "-c", str(tmp_path / "cp.yaml"), "--data-dir", "/flag", "--log-level", "off")[0] == 3
    (config,) = served
    assert (config.dp_server.port, config.xds_server.port, config.general.work_dir) == (1001, 1003, "/flag")


def test_the_log_level_may_stand_before_the_command_as_in_kuma(kuma_cp_command, served) -> None:
    kuma_cp_command("--log-level", "debug", "run")
    kuma_cp_command("--log-level", "debug", "run", "--log-level", "off")
    assert [config.general.log_level for config in served] == ["debug", "off"]


def test_a_file_that_is_no_yaml_is_one_line(kuma_cp_command, served, tmp_path) -> None:
    (tmp_path / "cp.yaml").write_text("a: [")
    status, _, err = kuma_cp_command("run", "-c", str(tmp_path / "cp.yaml"))
    assert (status, served, err.count("\n")) == (1, [], 2)
    assert "* Failed to parse configuration file" in err


def test_every_fault_of_the_settings_is_listed(kuma_cp_command, served, monkeypatch) -> None:
    monkeypatch.setenv("KUMA_DP_SERVER_PORT", "many")
    status, _, err = kuma_cp_command("run", "--log-level", "loud")
    assert status == 1
    assert served == []
    assert "* dpServer.port: 'many'" in err
    assert "* general.logLevel: 'loud'" in err


@pytest.mark.parametrize(("answer", "expected"), [(200, 0), (503, 1)])
def test_health_is_what_the_diagnostics_port_says(kuma_cp_command, monkeypatch, answer, expected) -> None:
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(answer)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        monkeypatch.setenv("KUMA_DIAGNOSTICS_SERVER_PORT", str(server.server_port))
        status, _, err = kuma_cp_command("health")
        thread.join()
    assert (status, asked) == (expected, ["/ready"])
    assert ("does not say ready" in err) == (expected == 1)


def test_health_without_a_control_plane_is_no(kuma_cp_command, monkeypatch) -> None:
    monkeypatch.setenv("KUMA_DIAGNOSTICS_SERVER_PORT", "1")
    assert kuma_cp_command("health")[0] == 1


def test_version(kuma_cp_command) -> None:
    assert kuma_cp_command("version")[1].startswith("koguma ")
