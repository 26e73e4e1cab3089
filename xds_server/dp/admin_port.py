"""A port for Envoy's admin that nothing else has: two proxies on one host start without being told ports."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Iterable

from xds_server.dp.errors import StartError

LOOPBACK = "127.0.0.1"
HIGHEST = 65535
_TRIES = 50


class Claims:
    """Ports that this process claims for the Envoy it becomes.

    Between the check and Envoy's own bind another `kuma-dp` may check too. So a claim is also a bound abstract unix
    socket named after the port: it survives exec, ends with Envoy, and has exactly the scope of ports, the network
    namespace.
    """

    def __init__(self, address: str, taken: Collection[int]) -> None:
        self._addresses = [LOOPBACK, *([address] if _is_other_ip(address) else [])]
        self._taken = frozenset(taken)
        self._held: dict[int, socket.socket] = {}

    def also_at(self, address: str) -> None:
        """The admin interface is at this address, which the control plane chose."""
        if _is_other_ip(address) and address not in self._addresses:
            self._addresses.append(address)

    def claim(self, port: int) -> bool:
        """Whether the port is free on loopback, on the proxy's address and on the admin's, and is now claimed."""
        if port in self._taken or not all(_is_free(address, port) for address in self._addresses):
            return False
        if port in self._held:
            return True
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            mark.bind(f"\0koguma-envoy-admin-{port}")
        except OSError:
            mark.close()
            return False
        mark.set_inheritable(True)
        self._held[port] = mark
        return True

    def keep_only(self, port: int) -> None:
        """Give up every claim but this one."""
        for claimed in [one for one in self._held if one != port]:
            self._held.pop(claimed).close()

    def any_free(self) -> int:
        """A claimed port chosen by the kernel. Raises StartError if there is none."""
        for _ in range(_TRIES):
            with socket.socket() as probe:
                probe.bind((LOOPBACK, 0))
                port: int = probe.getsockname()[1]
            if self.claim(port):
                return port
        raise StartError("no free port was found for Envoy's admin; set networking.admin.port in the Dataplane")

    def first_of(self, text: str) -> int:
        """The first free port of `9901`, `9901-9999`, `9901-` or `-9901`. Raises StartError."""
        for port in _ports(text):
            if self.claim(port):
                return port
        raise StartError(
            f'unable to find a free port in the range "{text}" for Envoy Admin API to listen on: each is in use, by a '
            "port of the Dataplane or by another process; give another --admin-port, or free one"
        )


def _is_other_ip(address: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except OSError:
        return False
    return address != LOOPBACK


def _is_free(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno not in {errno.EADDRINUSE, errno.EACCES}
    return True


def _ports(text: str) -> Iterable[int]:
    low, dash, high = text.partition("-")
    if not (low or high) or not all(part.isdecimal() or not part for part in (low, high)):
        raise StartError(f'invalid value "{text}" of --admin-port: use 9901, 9901-9999, 9901- or -9901')
    first = int(low or 1)
    last = int(high or HIGHEST) if dash else first
    if not 1 <= first <= last <= HIGHEST:
        raise StartError(f'invalid value "{text}" of --admin-port: ports run from 1 to {HIGHEST}, lowest first')
    return range(first, last + 1)
