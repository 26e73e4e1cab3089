"""Tells a supervisor that the control plane is ready or stopping, if one asked for it (systemd's `NOTIFY_SOCKET`)."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send `READY=1` or `STOPPING=1`; nothing happens where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as supervisor:
        try:
            supervisor.sendto(state.encode(), address)
        except OSError:
            return  # a supervisor that is gone does not stop the control plane
