"""An HTTP(S) server inside the running loop: started and stopped by its owner, patient with nobody.

Accepting is done here, so that silent peers and plain text on a TLS port end within `SILENCE_S`, and are counted, and
so that no number of connections leaves the process without file descriptors. Never here: signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from xds_server.api.connection import SILENCE_S, Connection
from xds_server.certs.pair import TlsPair

_log = structlog.get_logger(__name__)

_IDLE_S: Final = 30
_BACKLOG: Final = 2048
_MAX_HEAD: Final = 64 * 1024
_TLS_HANDSHAKE: Final = 0x16
_ACCEPT_PAUSE_S: Final = 0.1
_WARN_PAUSE_S: Final = 60.0
_YOUNG_S: Final = 1.0
_DRAGGING_S: Final = 4.0
"""A thousand honest handshakes at once take two or three seconds."""
_MOST_TLS: Final = 1024
"""TLS of asyncio takes a quarter of a megabyte for each connection, from its first byte on."""
_SHARE: Final = 4
"""One listener takes at most one in so many of the file descriptors of the process: stores and streams need theirs."""
_WRONG_SCHEME: Final = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"Client sent an HTTP request to an HTTPS server.\n"
)


class ServeError(Exception):
    """The server cannot listen; the text names address and setting."""


class Server:
    """One listener. `setting` is the key that the operator would change when the port is taken.

    `plaintext` is told of plain text on this port of TLS, `silent` of each peer closed because it sent too little.
    """

    def __init__(
        self,
        app: ASGIApp,
        setting: str,
        tls: TlsPair | None = None,
        plaintext: Callable[[int], None] = lambda _port: None,
        silent: Callable[[], None] = lambda: None,
    ) -> None:
        self._setting = setting
        self._plaintext = plaintext
        self._silent = silent
        self._warned = False
        self._complained_s = float("-inf")
        self._config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=_IDLE_S,
        )
        self._state = ServerState()
        self._tls = tls and _context(tls)
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._handshakes: dict[asyncio.Task[None], float] = {}
        share = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _SHARE
        self.most_connections = share if tls is None else min(share, _MOST_TLS)

    async def start(self, host: str, port: int) -> int:
        """Listen; the bound port. Raises ServeError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise ServeError(
                f"cannot listen on {host}:{port}: {error.strerror}. Free the port, or set {self._setting}"
            ) from error
        listener.setblocking(False)
        if not self._config.loaded:
            self._config.load()
        self._socket = listener
        self._accepting = asyncio.create_task(self._accept(listener))
        return int(listener.getsockname()[1])

    async def stop(self, grace_s: float = 3.0) -> None:
        """Take no more connections, let answers finish for `grace_s`, close the rest."""
        if self._accepting is not None:
            self._accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._accepting
        if self._socket is not None:
            self._socket.close()
        for handshake in list(self._handshakes):
            handshake.cancel()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=grace_s)
        for task in list(self._state.tasks):
            task.cancel()
        for connection in list(self._state.connections):
            if isinstance(connection, Connection):
                connection.transport.abort()
        await asyncio.gather(*self._handshakes, *self._state.tasks, return_exceptions=True)
        await asyncio.sleep(0)

    def reload(self, tls: TlsPair) -> None:
        """New connections get this pair; open ones keep theirs (XP-151)."""
        self._tls = _context(tls)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if self.open_connections >= self.most_connections:
                self._make_room()
                await asyncio.sleep(_ACCEPT_PAUSE_S)
                continue
            try:
                peer, _ = await loop.sock_accept(listener)
            except OSError as error:  # out of file descriptors: wait for some to come back
                self._complain(error.strerror)
                await asyncio.sleep(_ACCEPT_PAUSE_S)
                continue
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = asyncio.create_task(self._serve(peer))
            self._handshakes[task] = loop.time()
            task.add_done_callback(self._handshakes.pop)

    @property
    def open_connections(self) -> int:
        """How many there are, unfinished handshakes included."""
        return len(self._state.connections) + len(self._handshakes)

    def _make_room(self) -> None:
        """End connections that wait for a request, as HTTP clients expect, and handshakes that drag on."""
        self._complain(f"{self.open_connections} are open, the most for this listener")
        now_s = asyncio.get_running_loop().time()
        for connection in list(self._state.connections):
            if isinstance(connection, Connection) and connection.is_idle and now_s - connection.opened_s > _YOUNG_S:
                connection.transport.abort()
        for handshake, began_s in list(self._handshakes.items()):
            if now_s - began_s > _DRAGGING_S:
                handshake.cancel()

    def _complain(self, reason: str | None) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._complained_s >= _WARN_PAUSE_S:
            self._complained_s = now_s
            _log.warning("connections have to wait, said once a minute", setting=self._setting, reason=reason)

    async def _serve(self, peer: socket.socket) -> None:
        try:
            if self._tls is None:
                await asyncio.get_running_loop().connect_accepted_socket(self._protocol, peer)
                return
            async with asyncio.timeout(SILENCE_S):
                first = await _peek(peer)
            if first and first[0] != _TLS_HANDSHAKE:
                await self._refuse(peer)
            elif first:
                await asyncio.get_running_loop().connect_accepted_socket(
                    self._protocol, peer, ssl=self._tls, ssl_handshake_timeout=SILENCE_S
                )
                return
        except (TimeoutError, ConnectionAbortedError):  # silent from the first byte on, or within the handshake
            self._silent()
        except OSError:  # the peer went away, or cannot agree on TLS
            pass
        except asyncio.CancelledError:
            peer.close()
            raise
        peer.close()

    async def _refuse(self, peer: socket.socket) -> None:
        port = peer.getsockname()[1]
        self._plaintext(port)
        if not self._warned:
            self._warned = True
            _log.warning("plain text on a TLS port, further ones are only counted", port=port)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(SILENCE_S):
            await loop.sock_recv(peer, _MAX_HEAD)  # closing with unread bytes would be a reset that eats the answer
            await loop.sock_sendall(peer, _WRONG_SCHEME)

    def _protocol(self) -> asyncio.Protocol:
        connection = Connection(self._config, self._state, {}, asyncio.get_running_loop())
        connection.silent = self._silent
        return connection


def _context(pair: TlsPair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pair.cert_file, pair.key_file)
    return context


async def _peek(peer: socket.socket) -> bytes:
    """The first byte, left where it is; b"" when the peer closed."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[Any] = loop.create_future()
    loop.add_reader(peer, _wake, readable)
    try:
        await readable
    finally:
        loop.remove_reader(peer)
    return peer.recv(1, socket.MSG_PEEK)


def _wake(readable: asyncio.Future[Any]) -> None:
    if not readable.done():
        readable.set_result(None)
