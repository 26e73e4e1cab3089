"""The tutorial of the README, as typed; only the addresses are this machine's own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from xds_server.demo.mesh import TestMesh
from xds_server.demo.processes import LOOPBACK, Process, free_port
from xds_server.demo.services import counter_service, redis_command

README = Path(__file__).parents[2] / "README.md"


def _document(name: str) -> str:
    """The YAML block that follows `<name>` in the README."""
    return README.read_text().split(f"`{name}`", 1)[1].split("```yaml\n", 1)[1].split("```", 1)[0]


def _first_free_of(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def test_redis_and_backend_on_one_machine(mesh: TestMesh, tmp_path: Path) -> None:
    ports = {"9000": _first_free_of(LOOPBACK), "8000": _first_free_of("127.0.0.2"), "10000": free_port()}
    env = {
        **os.environ,
        "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
        "KUMA_GENERAL_WORK_DIR": str(tmp_path / "cp"),
        "KUMACTL_ADDRESS": str(mesh.rest.base_url),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }

    def shell(command: str) -> str:
        return subprocess.run(
            ["sh", "-c", command], check=True, env=env, cwd=tmp_path, capture_output=True, text=True
        ).stdout

    with counter_service() as redis:
        redis_yaml = _document("redis.yaml").replace("192.168.0.1", LOOPBACK).replace("6379", str(redis.port))
        (tmp_path / "redis.yaml").write_text(redis_yaml.replace("9000", str(ports["9000"])))
        backend_yaml = _document("dp.yaml").replace("8000", str(ports["8000"]))
        (tmp_path / "dp.yaml").write_text(backend_yaml.replace("10000", str(ports["10000"])))
        shell("kumactl generate dataplane-token --name redis-1 > kuma-dp-redis-1-token")
        shell("kumactl generate dataplane-token --name `hostname -s` > kuma-dp-backend-1-token")
        kuma_dp = f"exec kuma-dp run --cp-address={mesh.control_plane.url}"
        redis_dp = f"{kuma_dp} --dataplane-file=redis.yaml --dataplane-token-file=kuma-dp-redis-1-token"
        backend_dp = (
            f"{kuma_dp} --dataplane-file=dp.yaml "
            "--dataplane-var name=`hostname -s` --dataplane-var address=127.0.0.2 "
            "--dataplane-token-file=kuma-dp-backend-1-token"
        )
        processes = [
            Process(f"dp-{number}", ["sh", "-c", f"cd {tmp_path} && {command}"], tmp_path / f"dp-{number}.log", env)
            for number, command in enumerate((redis_dp, backend_dp))
        ]
        try:

            def answered() -> bool:
                try:
                    return redis_command(ports["10000"], "PING") == "+PONG"
                except OSError:
                    return False

            processes[1].wait_until(answered, "redis answering through both Envoys")
            listed = json.loads(shell("kumactl get dataplanes -o json"))
            assert {item["name"] for item in listed["items"]} == {"redis-1", socket.gethostname().split(".")[0]}
            for name in ("redis-1", socket.gethostname().split(".")[0]):
                dump = mesh.rest.get(f"/meshes/default/dataplanes/{name}/xds")
                assert dump.status_code == 200, dump.text
                assert dump.json()["configs"][0]["bootstrap"]["node"]["id"] == f"default.{name}"
            table = shell("kumactl get dataplanes")
            assert "kuma.io/service=redis" in table
        finally:
            for process in processes:
                process.stop()


DEMO = [sys.executable, "-m", "xds_server.cli.kuma_cp", "demo"]


def test_the_demo_checks_itself_whatever_the_users_environment_says() -> None:
    nowhere = f"http://{LOOPBACK}:9"
    foreign = {"HTTP_PROXY": nowhere, "http_proxy": nowhere, "ALL_PROXY": nowhere, "KUMA_STORE_TYPE": "postgres"}
    done = subprocess.run(
        [*DEMO, "--check"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **foreign, "KUMA_DATAPLANE_MESH": "other", "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("demo: ok (")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "closed terminal"])
def test_the_demo_leaves_nothing_behind(tmp_path: Path, how: signal.Signals) -> None:
    log = tmp_path / "demo.log"
    process = Process("demo", DEMO, log, {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"})
    process.wait_until(lambda: "Traffic goes on" in log.read_text(), "the demo running", 60)
    ports = [int(port) for port in re.findall(r"Envoy admin of .*:(\d+)/", log.read_text())]
    assert len(ports) == 3
    os.kill(process.pid, how)
    process.wait_for_end()
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex((LOOPBACK, port)) != 0, "an Envoy is still there"
    assert [path.name for path in tmp_path.iterdir()] == ["demo.log"]


@pytest.mark.parametrize("missing", ["token", "mesh"])
def test_what_cannot_work_ends_at_once_with_the_way_out(mesh: TestMesh, tmp_path: Path, missing: str) -> None:
    document = {
        "type": "Dataplane",
        "mesh": "nowhere" if missing == "mesh" else "default",
        "name": "a",
        "networking": {"address": LOOPBACK, "gateway": {"tags": {"kuma.io/service": "a"}}},
    }
    (tmp_path / "a.yaml").write_text(json.dumps(document))
    (tmp_path / "a.token").write_text(mesh.token("a"))
    argv = [sys.executable, "-m", "xds_server.dp.main", "run", f"--cp-address={mesh.control_plane.url}"]
    argv += [f"--dataplane-file={tmp_path / 'a.yaml'}"]
    argv += [] if missing == "token" else [f"--dataplane-token-file={tmp_path / 'a.token'}"]
    env = {**os.environ, "KUMA_GENERAL_WORK_DIR": str(tmp_path / "cp")}
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=20, env=env)
    assert done.returncode != 0
    expected = {"token": "kumactl generate dataplane-token", "mesh": "nowhere"}[missing]
    assert expected in done.stderr + done.stdout
