"""One control plane for one data directory: a lock that the kernel releases even after kill -9."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from xds_server.store.contract import StoreUnusable

LOCK_FILE = "kuma-cp.lock"


class DirectoryLock:
    """Holds `directory` from construction until `release`. Raises StoreUnusable that names the holder's process."""

    def __init__(self, directory: Path) -> None:
        path = directory / LOCK_FILE
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise StoreUnusable(
                f"data directory {directory} is in use by another kuma-cp (process {holder}): "
                "stop that one, or give this one its own directory with --data-dir"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let go; the file stays, since removing it would race with the next holder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
