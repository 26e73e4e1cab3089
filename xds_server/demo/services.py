"""The services of the demo: a counter that speaks a little of Redis' protocol, and an HTTP service in front of it.

Both run on threads of their own, on free loopback ports.
"""

from __future__ import annotations

import http.server
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import ClassVar, Self

LOOPBACK = "127.0.0.1"
IO_TIMEOUT_S = 5.0


class Service:
    """A server on a thread, stopped by leaving its `with` block."""

    def __init__(self, server: socketserver.BaseServer) -> None:
        self._server = server
        self.port: int = server.server_address[1]  # type: ignore[index, assignment]
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port and end the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def counter_service() -> Service:
    """A Redis-like TCP service: inline commands PING, INCR key, GET key; answers in RESP."""
    counters: dict[str, int] = {}
    lock = threading.Lock()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                words = line.decode(errors="replace").split()
                with lock:
                    self.wfile.write(_answer(words, counters))

    return Service(_TcpServer((LOOPBACK, 0), Handler))


def _answer(words: list[str], counters: dict[str, int]) -> bytes:
    match [word if i else word.upper() for i, word in enumerate(words)]:
        case ["PING"]:
            return b"+PONG\r\n"
        case ["INCR", key]:
            counters[key] = counters.get(key, 0) + 1
            return b":%d\r\n" % counters[key]
        case ["GET", key]:
            return b":%d\r\n" % counters.get(key, 0)
        case _:
            return b"-ERR unknown command\r\n"


def redis_command(port: int, command: str) -> str:
    """Send one inline command to `port` on loopback; the answer's line without its end."""
    with socket.create_connection((LOOPBACK, port), timeout=IO_TIMEOUT_S) as connection:
        connection.sendall(command.encode() + b"\r\n")
        with connection.makefile("rb") as answer:
            return answer.readline().decode().rstrip("\r\n")


def http_service(answer: Callable[[str, Mapping[str, str]], object]) -> Service:
    """An HTTP service; `answer(path, headers)` gives what is returned as JSON. An OSError in it is answered as 502."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        extra_headers: ClassVar[dict[str, str]] = {"content-type": "application/json"}

        def do_GET(self) -> None:
            try:
                status, body = 200, answer(self.path, dict(self.headers.items()))
            except OSError as error:
                status, body = 502, {"error": str(error)}
            payload = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**self.extra_headers, "content-length": str(len(payload))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class names it so
            """The demo prints hops itself."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

    return Service(Server((LOOPBACK, 0), Handler))
