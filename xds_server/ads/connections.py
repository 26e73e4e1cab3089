"""Who is connected, and how a connection ended.

gRPC's core tells a handler that a call is over, never why. The kernel knows: it is asked for the state of the one TCP
connection (Linux' sock_diag, a few microseconds). A peer that closed (FIN, RST) leaves CLOSE_WAIT, LAST_ACK or nothing
behind; a cancelled call leaves an established connection; where *we* closed first, after an unanswered ping, the socket
is in FIN_WAIT or a state after it. Without sock_diag every end counts as one by the peer.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import ipaddress
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_NLMSG_ERROR: Final = 2
_ANY_STATE: Final = 0xFFFFFFFF
_NO_COOKIE: Final = b"\xff" * 8
_STATE_OFFSET: Final = 17
_ATTRIBUTES_OFFSET: Final = 88  # netlink header (16) and inet_diag_msg (72)
_TCP_INFO: Final = 2
_WITH_TCP_INFO: Final = 1 << (_TCP_INFO - 1)
_RETRANSMITS_OFFSET: Final = 2
MOST_UNANSWERED: Final = 2
"""A connection whose data was repeated more often does not answer."""
CLOSED_BY_US: Final = frozenset({4, 5, 6, 11})
"""TCP states FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSING: the first FIN was ours."""
ESTABLISHED: Final = 1
LISTENING: Final = 10
"""What the kernel finds instead of a connection that it has not, as long as the port is listened on."""
SETTLE_S: Final = 0.1
"""How long the core may take from ending a call to closing its socket."""
LOG_PAUSE_S: Final = 60.0
SPOKE_KEPT: Final = 20_000
"""Connections that are remembered to be gRPC's; the oldest are forgotten first."""

Address = tuple[str, int]


class PeerEnd(enum.Enum):
    """Who ended a stream that was not ended by us on purpose."""

    LEFT = "left"
    """The peer: FIN, RST, half-close or a cancelled call."""
    VANISHED = "vanished"
    """Nobody answered the keepalive ping."""


def parse_peer(peer: str) -> Address | None:
    """IP and port of gRPC's `ipv4:127.0.0.1:5` or `ipv6:%5B::1%5D:5`; None for anything else."""
    scheme, _, rest = peer.partition(":")
    host, _, port = unquote(rest).rpartition(":")
    if scheme not in {"ipv4", "ipv6"} or not port.isdigit():
        return None
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host.strip("[]").partition("%")[0])), int(port)
    return None


class SocketStates:
    """Asks the kernel for the TCP state of one connection of a local port."""

    def __init__(self) -> None:
        self._netlink: socket.socket | None = None

    def open(self) -> None:
        """Connect to the kernel, where it can be asked."""
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
                netlink.settimeout(1.0)
                self._netlink = netlink

    def state(self, local: Address, peer: Address) -> int | None:
        """Number of the state (tcp_states.h), or None where the kernel has no such connection (any more)."""
        answer = self._ask(local, peer, 0)
        return None if answer is None else answer[_STATE_OFFSET]

    def _ask(self, local: Address, peer: Address, extensions: int) -> bytes | None:
        if self._netlink is None:
            return None
        version = ipaddress.ip_address(peer[0]).version
        family = socket.AF_INET if version == 4 else socket.AF_INET6  # noqa: PLR2004  # the IP version
        try:
            self._netlink.send(_lookup(family, local, peer, extensions))
            answer = self._netlink.recv(4096)
        except OSError:
            return None
        kind = struct.unpack_from("=H", answer, 4)[0]
        if kind == _NLMSG_ERROR or len(answer) < _ATTRIBUTES_OFFSET or answer[_STATE_OFFSET] == LISTENING:
            return None
        return answer

    def unanswered(self, local: Address, peer: Address) -> int:
        """How often in a row the kernel has repeated what the peer did not acknowledge."""
        answer = self._ask(local, peer, _WITH_TCP_INFO)
        offset = _ATTRIBUTES_OFFSET
        while answer is not None and offset + 4 <= len(answer):
            length, kind = struct.unpack_from("=HH", answer, offset)
            if kind == _TCP_INFO:
                return answer[offset + 4 + _RETRANSMITS_OFFSET]
            offset += max(4, (length + 3) & ~3)
        return 0

    def close(self) -> None:
        """Give the netlink socket back."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None


def _lookup(family: int, local: Address, peer: Address, extensions: int) -> bytes:
    """An inet_diag request for exactly one connection."""
    identity = struct.pack("!HH", local[1], peer[1])
    identity += socket.inet_pton(family, local[0]).ljust(16, b"\0") + socket.inet_pton(family, peer[0]).ljust(16, b"\0")
    body = (
        struct.pack("=BBBBI", family, socket.IPPROTO_TCP, extensions, 0, _ANY_STATE) + identity + struct.pack("=I", 0)
    )
    body += _NO_COOKIE
    return struct.pack("=IHHII", 16 + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0) + body


class _Peer:
    __slots__ = ("local", "streams")

    def __init__(self, local: Address | None) -> None:
        self.local = local
        self.streams = 0


class Connections:
    """The connections that have streams, and those that never got so far.

    `handshake_begun` may be called from any thread; everything else belongs to the loop. A TLS connection that shows no
    stream within `silent_s` was plain text, half open, or a port scan: `rejected(count)` is told, for the metric, and
    `log(count)` at most once a minute.
    """

    def __init__(self, *, silent_s: float, rejected: Callable[[int], None], log: Callable[[int], None]) -> None:
        self._silent_s = silent_s
        self._rejected = rejected
        self._log = log
        self._states = SocketStates()
        self._peers: dict[str, _Peer] = {}
        self._per_host: dict[str, int] = {}
        self._begun: deque[float] = deque()
        self._spoke: dict[str, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unlogged = 0
        self._logged_at_s = -LOG_PAUSE_S
        self._local: Address = ("", 0)
        self._routes: dict[str, str] = {}

    def start(self, host: str, port: int) -> None:
        """The server listens here, in the running loop."""
        self._local = (host, port)
        self._loop = asyncio.get_running_loop()
        self._states.open()

    def close(self) -> None:
        """Forget everything."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop = None
        self._states.close()

    def handshake_begun(self) -> None:
        """A connection was accepted. Called by the core, in a thread of its own."""
        if self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop closed in between
                self._loop.call_soon_threadsafe(self._note_handshake)

    def _note_handshake(self) -> None:
        if self._loop is None:
            return
        self._begun.append(self._loop.time())
        if self._timer is None:
            self._timer = self._loop.call_later(self._silent_s, self._look)

    def _look(self) -> None:
        """Count the connections that stayed silent; look again while there are younger ones."""
        if self._loop is None:
            return
        now_s = self._loop.time()
        count = 0
        while self._begun and self._begun[0] <= now_s - self._silent_s + 0.001:
            self._begun.popleft()
            count += 1
        if count:
            self._rejected(count)
            self._unlogged += count
        if self._unlogged and now_s - self._logged_at_s >= LOG_PAUSE_S:
            self._log(self._unlogged)
            self._unlogged, self._logged_at_s = 0, now_s
        self._timer = None
        if self._begun:
            self._timer = self._loop.call_at(self._begun[0] + self._silent_s, self._look)

    def opened(self, peer: str) -> int:
        """A stream of this peer opened. Answers how many connections its host has now; 0 for loopback."""
        known = self._peers.get(peer)
        address = parse_peer(peer)
        host = address[0] if address else peer
        if known is None:
            self.spoke(peer)
            known = self._peers[peer] = _Peer(self._local_of(address) if address else None)
            self._per_host[host] = self._per_host.get(host, 0) + 1
        known.streams += 1
        loopback = address is None or ipaddress.ip_address(address[0]).is_loopback
        return 0 if loopback else self._per_host[host]

    def spoke(self, peer: str) -> None:
        """A call came from this peer, so its connection is gRPC's."""
        if peer in self._spoke:
            return
        self._spoke[peer] = None
        while len(self._spoke) > SPOKE_KEPT:
            del self._spoke[next(iter(self._spoke))]
        if self._begun:
            self._begun.pop()  # the newest: a client speaks right after its handshake

    async def ended(self, peer: str) -> PeerEnd:
        """A stream of this peer ended, and not because we wanted it to. Takes up to 0.1 s."""
        known, address = self._peers.get(peer), parse_peer(peer)
        if known is None or known.local is None or address is None:
            return PeerEnd.LEFT
        state = self._states.state(known.local, address)
        if state == ESTABLISHED:
            await asyncio.sleep(SETTLE_S)
            state = self._states.state(known.local, address)
        return PeerEnd.VANISHED if state in CLOSED_BY_US else PeerEnd.LEFT

    def answers(self, peer: str) -> bool:
        """Whether the connection is there and its peer's machine acknowledges what is sent to it.

        gRPC offers no way to send a ping by hand. A peer that has vanished without anything being sent to it since is
        found out by the next keepalive ping.
        """
        known, address = self._peers.get(peer), parse_peer(peer)
        if known is None or known.local is None or address is None:
            return known is not None
        if self._states.state(known.local, address) != ESTABLISHED:
            return False
        return self._states.unanswered(known.local, address) <= MOST_UNANSWERED

    def closed(self, peer: str) -> None:
        """The stream is gone, whoever ended it."""
        known = self._peers.get(peer)
        if known is None:
            return
        known.streams -= 1
        if known.streams <= 0:
            del self._peers[peer]
            self._spoke.pop(peer, None)  # the port may be used by another connection next
            address = parse_peer(peer)
            host = address[0] if address else peer
            left = self._per_host.pop(host, 1) - 1
            if left > 0:
                self._per_host[host] = left

    def _local_of(self, peer: Address) -> Address | None:
        """The address of ours that this peer is connected to, if the kernel confirms it."""
        host, port = self._local
        route = self._routes.get(peer[0])
        if route is None:
            if len(self._routes) > 10_000:  # noqa: PLR2004  # a bound, not a tuning knob
                self._routes.clear()
            route = self._routes[peer[0]] = _route_to(peer)
        for candidate in (host, route):
            with contextlib.suppress(OSError, ValueError):
                if self._states.state((candidate, port), peer) is not None:
                    return candidate, port
        return None


def _route_to(peer: Address) -> str:
    """Our address on the way to `peer`; nothing is sent."""
    family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(peer)
        except OSError:
            return ""
        return str(probe.getsockname()[0])
