"""One stream of discovery requests: a reader, a writer, and the state machine between them.

Never here: what is sent, and when (`snapshot.stream`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, assert_never

import grpc
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from google.protobuf.message import DecodeError

from snapshot.cache.snapshot import Changes, NodeState
from snapshot.model.meta import ProxyKey
from snapshot.stream import (
    GRPC_CLIENT_BYTES,
    Acked,
    BodyCache,
    Close,
    Effect,
    Limits,
    Nacked,
    Response,
    Stream,
    UnknownType,
    Variant,
    Withheld,
    decode_delta,
    decode_sotw,
)
from xds_server.ads.admission import Admission
from xds_server.ads.flow import LARGE_BYTES, LargeResponses, Pace, Turns, WriteWatch, converse, undisturbed
from xds_server.ads.node import MAX_ID_BYTES, invalid
from xds_server.ads.ports import (
    Dataplanes,
    End,
    Ending,
    Identity,
    NodeHandle,
    Nodes,
    Observer,
    Refused,
    Registrar,
    StreamRecord,
)
from xds_server.ads.settings import AdsSettings
from xds_server.clock import Clock

GRPC_AGENT: Final = "gRPC"
READERS: Final[dict[Variant, tuple[Any, Any]]] = {
    Variant.SOTW: (DiscoveryRequest.FromString, decode_sotw),
    Variant.DELTA: (DeltaDiscoveryRequest.FromString, decode_delta),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What every session works with. `open_sessions` are those past their first request, by proxy."""

    settings: AdsSettings
    clock: Clock
    admission: Admission
    registrar: Registrar
    nodes: Nodes
    observer: Observer
    bodies: BodyCache
    nonces: Callable[[], str]
    writes: WriteWatch
    turns: Turns
    large: LargeResponses
    limits: Limits
    open_sessions: dict[ProxyKey, set[Session]]
    dataplanes: Dataplanes | None


class Session:
    """One gRPC stream, from its first request to its end.

    `run` returns after a half-close, raises End for every end of ours, and leaves no task behind. `default_type` is the
    type URL of a single-type service, "" for ADS.
    """

    def __init__(self, parts: Parts, context: Any, variant: Variant, default_type: str) -> None:
        self._parts = parts
        self._context = context
        self.peer: Final[str] = context.peer()
        self._wake = asyncio.Event()
        self._ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._writing = False
        self._end_after_write: End | None = None
        self._stuck = self._write_is_stuck
        self._handle: NodeHandle | None = None
        self._state: NodeState | None = None
        self._record: StreamRecord | None = None
        self._parse, self._decode = READERS[variant]
        self._pace = Pace(parts.settings.requests_per_s)
        self.variant: Final = variant
        self.default_type: Final = default_type
        self.identity: Identity | None = None
        self.stream: Stream | None = None
        self.responses = 0
        self._news_since_s: float | None = None

    def end(self, end: End, *, gently: bool = False) -> None:
        """End the stream from outside; `gently` waits for the write in progress (XP-141)."""
        if gently and self._writing:
            self._end_after_write = end
        elif not self._ended.done():
            self._ended.set_result(end)

    async def run(self) -> None:
        """Serve the stream. Raises End, and CancelledError where the client is gone."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                message = await self._admit(stack)
                if message is not None:
                    self._take(message, self._parts.clock.monotonic_s())
                    await self._converse()
        except Refused as refused:
            self._parts.observer.count("refused")
            raise End(refused.code, refused.text, Ending.LEFT) from refused

    # -- opening

    async def _admit(self, stack: contextlib.AsyncExitStack) -> Any | None:
        """First request, credential, registration, node: each undone by `stack`. None: nothing was said."""
        parts = self._parts
        stack.callback(parts.admission.disconnected, self.peer)
        parts.admission.connected(self.peer)
        message = await parts.admission.first(self._context.read, self._parsed)
        if message is None:
            return None
        identity, subject = await parts.admission.admit(self._context, message)
        self.identity = identity
        parts.admission.enter(identity.proxy)
        stack.callback(parts.admission.leave, identity.proxy)
        stack.callback(parts.admission.authenticator.watch(subject, self._revoked))
        await self._register(stack, identity, subject)
        self.stream = Stream(
            self.variant,
            identifier=parts.settings.identifier,
            nonces=parts.nonces,
            bodies=parts.bodies,
            only_type=self.default_type,
            limits=self._limits(identity),
        )
        self._record = parts.observer.opened(identity)
        stack.callback(self._record.closed)
        sessions = parts.open_sessions.setdefault(identity.proxy, set())
        sessions.add(self)
        stack.callback(self._forget, identity.proxy)
        self._handle = parts.nodes.join(identity.proxy, identity.node, self._changed)
        stack.callback(parts.nodes.leave, self._handle)
        if parts.dataplanes is not None:
            stack.callback(parts.dataplanes.watch(identity.proxy, self._dataplane_changed))
        self._attach()
        return message

    async def _register(self, stack: contextlib.AsyncExitStack, identity: Identity, subject: object) -> None:
        """Take the lease. A client that goes away meanwhile leaves none behind."""
        registrar = self._parts.registrar
        registering = asyncio.ensure_future(registrar.register(identity, subject, self._displaced))
        try:
            lease = await asyncio.shield(registering)
        except asyncio.CancelledError:
            await undisturbed(self._release_late(registering))
            raise

        async def release(_kind: object, error: BaseException | None, _trace: object) -> None:
            await undisturbed(self._release(lease, error))

        stack.push_async_exit(release)

    async def _release_late(self, registering: asyncio.Future[object]) -> None:
        with contextlib.suppress(Refused):
            await self._release(await registering, None)

    async def _release(self, lease: object, error: BaseException | None) -> None:
        await self._parts.registrar.release(lease, await self._how(error))

    async def _how(self, error: BaseException | None) -> Ending:
        match error:
            case End():
                return error.ending
            case Refused():
                return Ending.LEFT
            case None | asyncio.CancelledError() | grpc.aio.InternalError():  # the last: it is gone
                return await self._parts.admission.ending(self.peer)
            case _:
                return Ending.SHUTDOWN

    def _limits(self, identity: Identity) -> Limits:
        if identity.user_agent.startswith(GRPC_AGENT):
            return dataclasses.replace(self._parts.limits, max_response=GRPC_CLIENT_BYTES)
        return self._parts.limits

    def _forget(self, proxy: ProxyKey) -> None:
        sessions = self._parts.open_sessions.get(proxy, set())
        sessions.discard(self)
        if not sessions:
            self._parts.open_sessions.pop(proxy, None)

    # -- events from elsewhere

    def _revoked(self, reason: str) -> None:
        self.end(End("UNAUTHENTICATED", reason, Ending.LEFT))

    def _displaced(self, reason: str) -> None:
        self.end(End("PERMISSION_DENIED", reason, Ending.LEFT))

    def _dataplane_changed(self) -> None:
        """A Dataplane that an operator deletes takes its streams along; the next attempt is judged anew (XP-17)."""
        identity, dataplanes = self.identity, self._parts.dataplanes
        if identity is not None and dataplanes is not None and dataplanes.get(identity.proxy) is None:
            self.end(End("NOT_FOUND", f'Dataplane "{identity.node_id}" was deleted', Ending.LEFT))

    def _write_is_stuck(self) -> None:
        self._parts.observer.count("stuck")
        limit_s = self._parts.settings.write_timeout_s
        self.end(End("RESOURCE_EXHAUSTED", f"a response has not been read for {limit_s:g} s", Ending.VANISHED))

    def _changed(self, changes: Changes) -> None:
        """The reconciler's call; it must never fail, or other streams would miss theirs."""
        try:
            self._publish(changes)
        except Exception as error:  # noqa: BLE001  # whatever it is, it ends this stream and no other (XP-113)
            if not self._ended.done():
                self._ended.set_exception(error)

    def _publish(self, changes: Changes) -> None:
        stream, handle = self.stream, self._handle
        if stream is None or handle is None:
            return  # told from inside `join`; `_attach` follows
        if handle.state() is self._state and self._state is not None:
            stream.published(changes, self._parts.clock.monotonic_s())
            if self._news_since_s is None:
                self._news_since_s = handle.news_since_s
            self._wake.set()
        else:
            self._attach()

    def _attach(self) -> None:
        """Look at the newest state object. None is never sent as "empty": the stream falls silent (XP-15, XP-182)."""
        if self.stream is None or self._handle is None:
            return
        state = self._handle.state()
        if state is self._state:
            return
        self._state = state
        if state is None:
            self.stream.detach()
        else:
            self.stream.attach(state)
        self._wake.set()

    # -- conversation

    async def _converse(self) -> None:
        """Read and write until one of the two ends, or somebody calls `end`. Returns after a half-close (XP-7)."""
        # with the metadata out of the way, a status can be sent even while a write is stuck
        await self._context.send_initial_metadata(())
        await converse(self._read(), self._write(), self._ended)

    async def _read(self) -> None:
        """Take requests until the client half-closes."""
        read, pace, clock = self._context.read, self._pace, self._parts.clock
        while (raw := await read()) is not grpc.aio.EOF:
            now_s = clock.monotonic_s()
            self._take(self._parsed(raw), now_s)
            delay_s = pace.delay_s(now_s)
            if delay_s:
                self._parts.observer.count("slowed")
                await asyncio.sleep(delay_s)

    def _parsed(self, raw: bytes) -> Any:
        try:
            return self._parse(raw)
        except DecodeError as error:
            raise invalid(f"the request is not a {self._parse.__self__.__name__}: {error}") from error

    def _take(self, message: Any, now_s: float) -> None:
        """Give one request to the state machine and perform its effects."""
        stream, identity = self.stream, self.identity
        assert stream is not None  # noqa: S101  # `_admit` came before
        assert identity is not None  # noqa: S101  # as above
        if message.HasField("node") and message.node.id not in {"", identity.node_id}:
            raise invalid(
                f"stream was authenticated for ID {identity.node_id}. Received request is for node with ID "
                f"{message.node.id[:MAX_ID_BYTES]}. Node ID cannot be changed after stream is initialized"
            )
        effects = stream.receive(self._decode(message), now_s)
        if not message.response_nonce and self._record is not None:
            self._record.received(message.type_url or self.default_type)
        for effect in effects:
            self._perform(effect)
        if stream.pending:
            self._wake.set()  # most requests are ACKs, which ask for nothing: they leave the writer alone

    def _perform(self, effect: Effect) -> None:
        record, observer, identity = self._record, self._parts.observer, self.identity
        assert record is not None  # noqa: S101  # `_admit` came before
        assert identity is not None  # noqa: S101  # as above
        match effect:
            case Acked():
                record.acked(effect.type_url, effect.waited_s)
            case Nacked():
                record.nacked(effect.type_url, effect.detail)
                observer.log(
                    "warning",
                    "the proxy refused its configuration",
                    node=identity.node_id,
                    type_url=effect.type_url,
                    version=effect.version,
                    detail=effect.detail,
                )
            case UnknownType():
                observer.count("unknown_type")
                observer.log(
                    "info", "asked for a type that is not served", node=identity.node_id, type_url=effect.type_url
                )
            case Close():
                raise End(effect.code.value, effect.message, Ending.LEFT)
            case _:
                assert_never(effect)

    async def _write(self) -> None:
        """Write whatever the state machine has to say, one message at a time (XP-119)."""
        stream, clock, turns, wake = self.stream, self._parts.clock, self._parts.turns, self._wake
        assert stream is not None  # noqa: S101  # `_admit` came before
        while True:
            if turns.full:
                await turns.turn()
            wake.clear()
            if not stream.pending:
                self._news_since_s = None
                await wake.wait()
                continue
            # built when it can be written and written at once: nothing older ever follows a newer state (XP-117)
            now_s = clock.monotonic_s()
            response = stream.next_response(now_s)
            match response:
                case Response():
                    await self._send(response, now_s)
                case Withheld():
                    self._withhold(response)
                case None:
                    self._news_since_s = None
                    await self._sleep(stream.wake_at_s())
                case _:
                    assert_never(response)

    async def _send(self, response: Response, now_s: float) -> None:
        writes, record, message = self._parts.writes, self._record, response.message()
        self._writing = True
        writes.began(self._stuck, now_s)
        self._parts.turns.spent(len(message))
        try:
            await self._context.write(message)
        finally:
            writes.ended(self._stuck)
            self._writing = False
        self.responses += 1
        if record is not None:
            record.sent(response.type_url, len(message))
            if self._news_since_s is not None:
                record.pushed(self._parts.clock.monotonic_s() - self._news_since_s)
                self._news_since_s = None
        if len(message) > LARGE_BYTES and self.identity is not None:
            self._parts.large.sent(response.type_url, self.identity.proxy)
        if self._end_after_write is not None:
            raise self._end_after_write

    def _withhold(self, withheld: Withheld) -> None:
        self._parts.observer.count("withheld")
        node = self.identity.node_id if self.identity else ""
        self._parts.observer.log("error", "a response is too large for its client", node=node, detail=str(withheld))

    async def _sleep(self, until_s: float | None) -> None:
        """Wait for something to happen, or for `until_s` of the clock. Idle streams have no timer (L1)."""
        if until_s is None:
            await self._wake.wait()
            return
        delay_s = max(0.0, until_s - self._parts.clock.monotonic_s())
        timer = asyncio.get_running_loop().call_later(delay_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
