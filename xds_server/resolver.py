"""Domain names of Dataplanes: resolved, and resolved again while they are in use (R §1.2).

One timer for all names, bounded parallel questions, a time-out each. A name that stops resolving keeps its last answer.
Never here: which names are in use (the reconciler says so), what an address means.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from snapshot.engine.world import NameFailed, NameResolved
from xds_server.clock import Clock

Resolve = Callable[[str], Awaitable[str]]
"""Name → IP. Raises OSError with the reason."""
Tell = Callable[[NameResolved | NameFailed], None]

PARALLEL: Final = 32
TIMEOUT_S: Final = 5.0

_log = structlog.get_logger(__name__)


class SystemResolve:
    """Asks the operating system, in threads of its own: a name server that is silent must block nobody else."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(PARALLEL, thread_name_prefix="resolve")

    async def __call__(self, name: str) -> str:
        """The first IPv4 address, else the first IPv6 address. Raises OSError."""
        loop = asyncio.get_running_loop()
        answers = await loop.run_in_executor(self._threads, _addresses, name)
        return next((address for family, address in answers if family == socket.AF_INET), answers[0][1])

    def close(self) -> None:
        """Start no further question."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _addresses(name: str) -> list[tuple[int, str]]:
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    if not found:
        raise OSError("no addresses")
    return [(family, str(address[0])) for family, _, _, _, address in found]


class Resolver:
    """Keeps the answers of the names in use. `start` before `use`; `tell` is called in the loop, only with news."""

    def __init__(
        self, clock: Clock, *, ttl_s: float = 10.0, timeout_s: float = TIMEOUT_S, resolve: Resolve | None = None
    ) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._timeout_s = timeout_s
        self._resolve = resolve or SystemResolve()
        self._answers: dict[str, NameResolved | NameFailed | None] = {}
        self._addresses: dict[str, str] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(PARALLEL)
        self._tell: Tell | None = None
        self._timer: asyncio.Task[None] | None = None

    def start(self, tell: Tell, known: Mapping[str, str]) -> None:
        """Begin; news go to `tell`. `known` are the last answers of an earlier process, by name: they are no news."""
        self._tell = tell
        self._addresses.update(known)
        self._timer = asyncio.create_task(self._repeat(), name="resolver")

    async def stop(self) -> None:
        """End the timer and every question under way."""
        tasks = [*self._asking.values(), *([self._timer] if self._timer else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(self._resolve, SystemResolve):
            self._resolve.close()

    def use(self, names: Iterable[str]) -> None:
        """These names, and no others, are in use from now on; new ones are asked for at once, unknown ones first."""
        wanted = set(names)
        for name in self._answers.keys() - wanted:
            del self._answers[name]
            self._addresses.pop(name, None)
            if (task := self._asking.pop(name, None)) is not None:
                task.cancel()
        for name in sorted(wanted - self._answers.keys(), key=lambda name: (name in self._addresses, name)):
            known = self._addresses.get(name)
            self._answers[name] = NameResolved(name, known) if known else None
            self._ask(name)

    async def settled(self, names: Collection[str]) -> None:
        """Return when each of `names` that is in use has a first answer or a first failure: bounded by the time-out."""
        asking = [
            task for name in names if (task := self._asking.get(name)) is not None and not self._answers.get(name)
        ]
        if asking:
            await asyncio.wait(asking)

    async def _repeat(self) -> None:
        while True:
            await self._clock.sleep(self._ttl_s)
            for name in list(self._answers):
                self._ask(name)

    def _ask(self, name: str) -> None:
        if name in self._asking:
            return  # slower than the TTL: one question at a time for each name
        task = asyncio.create_task(self._question(name), name=f"resolve {name}")
        self._asking[name] = task
        task.add_done_callback(lambda done: self._asked(name, done))

    def _asked(self, name: str, task: asyncio.Task[None]) -> None:
        if self._asking.get(name) is task:
            del self._asking[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("resolving a name failed unexpectedly", name=name, exc_info=error)

    async def _question(self, name: str) -> None:
        async with self._slots:
            try:
                async with asyncio.timeout(self._timeout_s):
                    address = await self._resolve(name)
            except TimeoutError:
                self._failed(name, f"no answer within {self._timeout_s:g} s")
            except (OSError, UnicodeError) as error:  # UnicodeError: a label that cannot be encoded, such as "a..b"
                self._failed(name, getattr(error, "strerror", None) or str(error))
            else:
                self._addresses[name] = address
                self._news(name, NameResolved(name, address))

    def _failed(self, name: str, reason: str) -> None:
        if not isinstance(self._answers.get(name), NameFailed):
            kept = self._addresses.get(name)
            _log.warning("a domain name of a Dataplane does not resolve", name=name, reason=reason, last_answer=kept)
        self._news(name, NameFailed(name, reason))

    def _news(self, name: str, answer: NameResolved | NameFailed) -> None:
        if name not in self._answers or self._answers[name] == answer:
            return
        self._answers[name] = answer
        if self._tell is not None:
            self._tell(answer)
