"""One HTTP connection of a peer that may be hostile: it must do its part in time, whatever its part is.

Never here: what is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import termios
from array import array
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SILENCE_S: Final = 8.0
"""How long a connection may take to finish TLS, and a peer to finish what it began to send."""
STALL_S: Final = 15.0
_LEAST_TAKEN: Final = 16 * 1024
"""Bytes of a waiting answer that a peer must take within `STALL_S`."""


class Connection(H11Protocol):
    """Uvicorn's protocol, which bounds only the pause between two requests.

    Bounded here: the head of the first request and of every later one, a body that nobody reads any more, and an answer
    that the peer does not take.
    """

    _owing: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None
    opened_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        """The first request is owed from now on."""
        super().connection_made(transport)
        self.opened_s = self.loop.time()
        self._owing = self.loop.call_later(SILENCE_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is owed any more."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._owe_nothing()
        if self._taking is not None:
            self._taking.cancel()

    def data_received(self, data: bytes) -> None:
        """Look whether a request is whole now, or begins."""
        super().data_received(data)
        self._watch_peer()

    def on_response_complete(self) -> None:
        """What is left of the request is owed from now on, and the answer must be taken."""
        super().on_response_complete()
        self._watch_peer()
        self._watch_answer()

    def pause_writing(self) -> None:
        """The answer is larger than what the peer took so far."""
        super().pause_writing()
        self._watch_answer()

    def timeout_keep_alive_handler(self) -> None:
        """Between two requests for too long."""
        super().timeout_keep_alive_handler()
        self._watch_answer()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _watch_peer(self) -> None:
        nothing_begun = self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]
        if not self.is_idle or (nothing_begun and self.cycle is not None):
            self._owe_nothing()
        elif self._owing is None:
            self._owing = self.loop.call_later(SILENCE_S, self.transport.abort)

    def _owe_nothing(self) -> None:
        if self._owing is not None:
            self._owing.cancel()
            self._owing = None

    def _watch_answer(self) -> None:
        if self._taking is None and self.transport.get_write_buffer_size():
            self._taking = self.loop.call_later(STALL_S, self._check_answer, self._untaken())

    def _check_answer(self, before: int) -> None:
        self._taking = None
        if self.transport.get_write_buffer_size() and self._untaken() > before - _LEAST_TAKEN:
            self.transport.abort()
        else:
            self._watch_answer()

    def _untaken(self) -> int:
        """Bytes that wait here, and those in the kernel that the peer has not acknowledged.

        Without the kernel's, a slow reader looks like none: the kernel asks for more in steps of up to megabytes.
        """
        waiting = self.transport.get_write_buffer_size()
        with contextlib.suppress(OSError, ValueError):  # closed, or a system that cannot tell
            unacknowledged = array("i", [0])
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, unacknowledged)
            waiting += unacknowledged[0]
        return waiting
