"""A fleet of simulated proxies on the whole control plane holds what it should, through slow peers and kill -9."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "perf" / "fleet.py"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["delta", "sotw"])
def test_a_fleet_is_right_after_changes_slow_peers_and_a_crash(tmp_path, mode):
    figures = tmp_path / "figures.json"
    argv = [sys.executable, SCRIPT, "--proxies=40", "--changes=2", "--idle=1", "--chaos", f"--mode={mode}"]
    done = subprocess.run([*argv, f"--json={figures}"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if mode == "delta":
        assert json.loads(figures.read_text())["crash"]["resources sent again"] == 0
