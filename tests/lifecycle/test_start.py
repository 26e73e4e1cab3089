"""The first start makes what is missing and says where; later ones change nothing; what cannot work says what to do."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys

import httpx
import pytest

from tests.support.running import KUMA_CP, LOOPBACK, RunningControlPlane, eventually

REFUSED_WITHIN_S = 15


def refused(plane: RunningControlPlane, **env: str) -> str:
    """Run a control plane that must give up: exit status 1, and what it said."""
    done = subprocess.run(
        KUMA_CP,
        capture_output=True,
        text=True,
        timeout=REFUSED_WITHIN_S,
        env={**os.environ, **plane.env, **env},
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "cannot start" in line]
    return line


def contents(plane: RunningControlPlane) -> list[tuple[object, ...]]:
    """Every stored resource with its version."""
    with sqlite3.connect(f"file:{plane.work_dir / 'store.db'}?mode=ro", uri=True) as database:
        (columns,) = [
            [column[1] for column in database.execute("PRAGMA table_info(resources)")],
        ]
        wanted = ", ".join(column for column in columns if column in {"type", "mesh", "name", "version", "spec"})
        rows = database.execute(f"SELECT {wanted} FROM resources ORDER BY type, mesh, name").fetchall()  # noqa: S608
    database.close()
    return [row for row in rows if row[0] != "Instance"]


def test_the_first_start_says_where_things_are_and_the_second_changes_nothing(plane_of):
    plane = plane_of()
    plane.start()
    assert "first start: created what was missing" in plane.log
    for path in (plane.work_dir, plane.work_dir / "kuma-cp.crt", plane.work_dir / "admin-token"):
        assert str(path) in plane.log
        assert path.exists()
    assert stat.S_IMODE((plane.work_dir / "admin-token").stat().st_mode) == 0o600
    assert stat.S_IMODE((plane.work_dir / "store.db").stat().st_mode) == 0o600
    assert plane.rest.get("/meshes/default").status_code == 200
    pem = plane.ca_pem
    assert plane.process.stop() == 0
    before = contents(plane)
    assert len(before) > 5
    plane.start()
    assert plane.log.count("first start: created what was missing") == 1
    assert plane.process.stop() == 0
    assert contents(plane) == before
    assert plane.ca_pem == pem


def test_a_second_control_plane_on_one_data_directory_is_refused(plane, plane_of):
    line = refused(plane_of())
    assert f"data directory {plane.work_dir} is in use by another kuma-cp (process {plane.pid})" in line
    assert "--data-dir" in line
    assert plane.rest.get("/").status_code == 200


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("rest", "apiServer.http.port"),
        ("xds", "xdsServer.port"),
        ("diagnostics", "diagnostics.serverPort"),
    ],
)
def test_a_taken_port_is_an_error_that_names_the_setting(plane_of, name, setting):
    plane = plane_of()
    with socket.create_server(("0.0.0.0", plane.ports[name])):  # noqa: S104  # where it listens itself
        line = refused(plane)
    assert setting in line
    assert str(plane.ports[name]) in line
    for port in plane.ports.values():
        socket.create_server((LOOPBACK, port)).close()  # nothing is left that listens


def test_a_damaged_store_is_an_error_with_the_way_out(plane_of):
    plane = plane_of()
    plane.work_dir.mkdir()
    (plane.work_dir / "store.db").write_bytes(b"this is no database" * 1000)
    line = refused(plane)
    assert f"store {plane.work_dir / 'store.db'}: it is damaged or not a database: restore a backup" in line
    assert "--data-dir" in line
    assert (plane.work_dir / "store.db").read_bytes().startswith(b"this is no database"), "it is left as it was"


def test_a_data_directory_that_cannot_be_had_is_an_error_that_names_it(plane_of, tmp_path):
    (tmp_path / "file").write_text("")
    line = refused(plane_of(), KUMA_GENERAL_WORK_DIR=str(tmp_path / "file" / "cp"))
    assert str(tmp_path / "file") in line


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system in which not even root can write")
@pytest.mark.parametrize("directory", ["/proc", "/proc/koguma"])
def test_a_data_directory_that_is_read_only_is_an_error_that_names_it(plane_of, directory):
    line = refused(plane_of(), KUMA_GENERAL_WORK_DIR=directory)
    assert f"data directory {directory}: cannot write {directory}" in line
    assert "choose another with --data-dir" in line


async def test_sigint_during_the_start_ends_it_quietly(plane_of):
    plane = plane_of()
    for after in ("open files", "first start"):
        log = plane.directory / "early.log"
        with log.open("wb") as out:
            process = subprocess.Popen(  # noqa: ASYNC220  # ended below
                KUMA_CP, stderr=out, stdout=out, env={**os.environ, **plane.env}
            )
        await eventually(lambda after=after, log=log: after in log.read_text(), after)
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0, log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()
    plane.start()
    assert httpx.get(f"http://{LOOPBACK}:{plane.ports['diagnostics']}/ready").status_code == 200  # noqa: ASYNC210
