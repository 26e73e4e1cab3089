"""The certificate that is presented now; a replaced file takes effect without a restart (XP-151)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from xds_server.certs.pair import CertificateError, TlsPair, Watched
from xds_server.clock import Clock

LOOK_S: Final = 10.0

_log = structlog.get_logger(__name__)


class Certificate:
    """One pair on disk, followed. `use(pair)` of everyone who subscribed is called in the loop with each new one."""

    def __init__(self, pair: TlsPair, clock: Clock) -> None:
        self._watched = Watched(pair)
        self._clock = clock
        self._users: list[Callable[[TlsPair], None]] = []

    @property
    def pair(self) -> TlsPair:
        """The pair in force."""
        return self._watched.pair

    def subscribe(self, use: Callable[[TlsPair], None]) -> None:
        """Call `use` with every later pair."""
        self._users.append(use)

    async def follow(self) -> None:
        """Look at the files now and then, until cancelled. A bad pair is reported, and the old one stays."""
        while True:
            await self._clock.sleep(LOOK_S)
            try:
                renewed = await asyncio.to_thread(self._watched.changed)
            except CertificateError as error:
                _log.error("the replaced certificate is not used", reason=str(error))  # reason says it
                continue
            if renewed is not None:
                for use in self._users:
                    use(renewed)
                _log.info("a replaced certificate is in use", file=str(renewed.cert_file))
