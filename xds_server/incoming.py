"""The body of one HTTP request on its way in. Never here: what it says."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from starlette.requests import Request
from starlette.types import Message, Receive

_DISCARD_S: Final = 5.0
_DISCARD_BYTES: Final = 32 * 1024 * 1024


class Incoming:
    """The `receive` of one request, which knows whether its body has ended."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended = False

    async def __call__(self) -> Message:
        """The next message."""
        message = await self._receive()
        self._ended |= message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def discard(self, request: Request) -> None:
        """Read the rest of a refused body, within bounds: closing before it is read would reset the answer away."""
        headers = request.headers
        if self._ended or "expect" in headers or not {"content-length", "transfer-encoding"} & set(headers):
            return
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_S):
                while not self._ended and size < _DISCARD_BYTES:
                    size += len((await self()).get("body", b""))
