"""One HTTP connection of a peer that may be hostile: it must do its part in time, whatever its part is.

Never here: what is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import termios
from array import array
from collections.abc import Callable
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SILENCE_S: Final = 8.0
"""How long a connection may take to finish TLS, a peer to finish a head or a body that nobody reads any more, and how
long it may pause within a body that is waited for."""
_LOOK_S: Final = 1.0
"""How often to look whether a peer still waits for us."""
_GOODBYE_S: Final = 1.0
STALL_S: Final = 15.0
_LEAST_TAKEN: Final = 16 * 1024
"""Bytes of a waiting answer that a peer must take within `STALL_S`."""


class Connection(H11Protocol):
    """Uvicorn's protocol, which bounds only the pause between two requests.

    Bounded here: the head of the first request and of every later one, the pauses within a body, a body that nobody
    reads any more, and an answer that the peer does not take. `silent` is told of each peer that is closed because it
    sent too little.
    """

    silent: Callable[[], None] = staticmethod(lambda: None)
    _owing: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None
    opened_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        """The first request is owed from now on."""
        super().connection_made(transport)
        self.opened_s = self.loop.time()
        self._owing = self.loop.call_later(SILENCE_S, self._give_up)

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
        if not self.is_idle:
            self._owe_nothing()
            if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
                self._watch_body()
        elif nothing_begun and self.cycle is not None:
            self._owe_nothing()
        elif self._owing is None:
            self._owing = self.loop.call_later(SILENCE_S, self._give_up)

    def _watch_body(self) -> None:
        """The next piece of the body is owed once we take it: not before it is invited, nor while we do not read."""
        waits_for_us = self.flow.read_paused or self.cycle.waiting_for_100_continue
        if waits_for_us and not self.is_idle:
            self._owing = self.loop.call_later(_LOOK_S, self._watch_body)
        else:
            self._owing = self.loop.call_later(SILENCE_S, self._end_body)

    def _end_body(self) -> None:
        if self.cycle.response_started:
            self._give_up()
        else:
            self._refuse_body()

    def _refuse_body(self) -> None:
        """Say why and close; TLS would wait for the peer's own goodbye, so that has an end too."""
        text = f"The body of the request paused for {SILENCE_S:g} s".encode()
        headers = [("content-type", "text/plain"), ("content-length", str(len(text))), ("connection", "close")]
        for event in (h11.Response(status_code=408, headers=headers), h11.Data(data=text), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        self.transport.close()
        self._owing = self.loop.call_later(_GOODBYE_S, self.transport.abort)
        self.silent()

    def _give_up(self) -> None:
        self.transport.abort()
        self.silent()

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
