"""One gRPC stream as a state machine: told what was received and published, asked what to write now. Does no IO."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping
from typing import Final, assert_never

from snapshot.cache.resource import XdsResource
from snapshot.cache.snapshot import Changes, NodeState
from snapshot.cache.type_url import CLUSTER, ENDPOINT, PUSH_ORDER
from snapshot.stream import ordering
from snapshot.stream.bodies import BodyCache
from snapshot.stream.delta import DeltaWatch
from snapshot.stream.effects import Close, Effect, Response, StatusCode, UnknownType, Withheld
from snapshot.stream.limits import ACK_WAIT_S, ENDPOINTS_WAIT_S, MAX_UNKNOWN_TYPES, Limits
from snapshot.stream.requests import DeltaRequest, SotwRequest
from snapshot.stream.sotw import SotwWatch
from snapshot.stream.status import TypeStatus
from snapshot.stream.subscription import Subscription
from snapshot.stream.watch import ROUTING_TYPES, Difference, Leaving, Sent
from snapshot.stream.wire import text

_RANK: Final = {type_url: rank for rank, type_url in enumerate(PUSH_ORDER)}


class Variant(enum.Enum):
    """The two protocol variants."""

    SOTW = "sotw"
    DELTA = "delta"


class _NothingExists:
    """The state behind types this server does not have."""

    def get(self, type_url: str, name: str) -> XdsResource | None:
        del type_url, name
        return None

    def names(self, type_url: str) -> Collection[str]:
        del type_url
        return ()


_NOTHING: Final = _NothingExists()


class Stream:
    """What one client wants, has, and must be sent, over all types of its stream.

    `identifier` goes into `control_plane.identifier`; `nonces` gives process-wide push numbers, each non-empty and
    never twice the same (XP-42); `bodies` is shared by all streams; `only_type` is the type URL of a single-type
    service, "" for ADS. Times are seconds of the caller's clock, which never runs backwards.

    Use: `receive` each message and perform its effects; `attach` the node's state once it exists; tell `published`;
    after each of these, and at `wake_at_s`, write `next_response` until it is None. Nothing here raises on what a
    client sends.
    """

    def __init__(
        self,
        variant: Variant,
        *,
        identifier: str,
        nonces: Callable[[], str],
        bodies: BodyCache,
        only_type: str = "",
        limits: Limits | None = None,
    ) -> None:
        self.variant: Final = variant
        self.limits: Final = limits or Limits()
        self._identifier = identifier.encode()
        self._nonces = nonces
        self._bodies = bodies
        self._only_type = only_type
        self._state: NodeState | None = None
        self._watches: dict[str, SotwWatch | DeltaWatch] = {}
        self._unknown: set[str] = set()
        self._clusters_sent: set[str] = set()
        self._awaited_endpoints: dict[str, float] = {}
        self._name_bytes = 0
        self._claimed_bytes = 0
        self._epoch = 0
        self._asked_at_s = ordering.NOW
        self._closed = False

    # -- what happened

    def receive(self, request: SotwRequest | DeltaRequest, now_s: float) -> tuple[Effect, ...]:
        """Take a message of the client; what it asks for comes out of `next_response`."""
        if self._closed:
            return ()
        type_url = request.type_url or self._only_type
        problem = self._problem(type_url, request)
        if problem is not None:
            return self._close(*problem)
        match request:
            case SotwRequest():
                effects = self._receive_sotw(type_url, request, now_s)
            case DeltaRequest():
                effects = self._receive_delta(type_url, request, now_s)
            case _:
                assert_never(request)
        if self._name_bytes > self.limits.names_bytes:
            return effects + self._close(*_too_much("names of this stream", self._name_bytes, self.limits.names_bytes))
        return effects

    def attach(self, state: NodeState) -> None:
        """The node's state exists (XP-15), or is another one: from now on differences are taken to it."""
        self._state = state
        self._epoch += 1
        for watch in self._watches.values():
            watch.look_at_everything()

    def detach(self) -> None:
        """The node has no state for now: nothing is sent, nothing is removed (XP-182)."""
        self._state = None

    def published(self, changes: Changes, now_s: float) -> None:
        """The state changed there; costs what the hint costs, and nothing for types not asked for."""
        del now_s
        self._epoch += 1
        for type_url, names in changes.names.items():
            watch = self._watches.get(type_url)
            if watch is not None:
                watch.publish(names)

    # -- what to do

    def next_response(self, now_s: float) -> Response | Withheld | None:
        """The next message to write, in push order and removals last, built from the newest state; None: nothing now.

        What is returned counts as sent. A `Withheld` is to be reported, and the question to be asked again.
        """
        self._asked_at_s = now_s
        state = self._state
        if state is None or self._closed:
            return None
        for watch in self._watches.values():
            if watch.marked:
                response = self._push(watch, state, now_s)
                if response is not None:
                    return response
        return self._farewell(state, now_s)

    @property
    def pending(self) -> bool:
        """Whether `next_response` can give something, now or when time has passed; as cheap as a question can be."""
        if self._state is None or self._closed:
            return False
        for watch in self._watches.values():
            if watch.dirty or watch.forced or watch.everything or watch.greeting or watch.leaving:
                return True
        return False

    def wake_at_s(self) -> float | None:
        """When to ask `next_response` again if nothing happens before; None: no timer is needed (XP-110)."""
        if self._state is None or self._closed:
            return None
        times: list[float] = []
        for watch in self._watches.values():
            waiting = watch.unanswered()
            if waiting is not None and (watch.marked or watch.leaving):
                times.append(waiting.sent_at_s + ACK_WAIT_S)
            times += (self._release_at_s(watch.type_url, leaving) for leaving in watch.leaving.values())
        if any(self._watches[each].marked for each in ROUTING_TYPES if each in self._watches):
            times += self._awaited_endpoints.values()
        return min((time for time in times if self._asked_at_s < time < ordering.NEVER), default=None)

    def status(self) -> Mapping[str, TypeStatus]:
        """How each type stands that the client has asked for."""
        ready = self._state is not None
        return {type_url: watch.status(ready=ready) for type_url, watch in self._watches.items()}

    def check_invariants(self) -> None:
        """Raise AssertionError when the state contradicts itself. Called by every test."""
        for watch in self._watches.values():
            watch.check_invariants()
        measured = sum(_length(watch.subscription) for watch in self._watches.values())
        if measured != self._name_bytes:
            raise AssertionError(f"{self._name_bytes} bytes of names counted, {measured} held")
        ranks = [_RANK.get(type_url, len(_RANK)) for type_url in self._watches]
        if ranks != sorted(ranks):
            raise AssertionError(f"types out of push order: {list(self._watches)}")

    # -- requests

    def _problem(self, type_url: str, request: SotwRequest | DeltaRequest) -> tuple[StatusCode, str] | None:
        if not type_url:
            return (
                StatusCode.INVALID_ARGUMENT,
                "type_url: is empty; on an aggregated stream every request must name its type",
            )
        if self._only_type and type_url != self._only_type:
            return (
                StatusCode.INVALID_ARGUMENT,
                f"type_url: is {type_url!r}; this service serves {self._only_type!r} only",
            )
        match request:
            case SotwRequest(names=names):
                return self._names_problem("resource_names", names)
            case DeltaRequest(subscribe=subscribe, unsubscribe=unsubscribe, initial_versions=claimed):
                return (
                    (self._claims_problem(claimed) if claimed else None)
                    or self._names_problem("resource_names_subscribe", subscribe)
                    or self._names_problem("resource_names_unsubscribe", unsubscribe)
                )
            case _:
                assert_never(request)

    def _claims_problem(self, claimed: Mapping[str, str]) -> tuple[StatusCode, str] | None:
        if len(claimed) > self.limits.initial_versions:
            found, allowed = len(claimed), self.limits.initial_versions
            return (
                StatusCode.RESOURCE_EXHAUSTED,
                f"initial_resource_versions: {found} names, at most {allowed} are served",
            )
        self._claimed_bytes += sum(len(name) + len(version) for name, version in claimed.items())
        if self._claimed_bytes > self.limits.initial_versions_bytes:
            return _too_much("initial_resource_versions", self._claimed_bytes, self.limits.initial_versions_bytes)
        return None

    def _names_problem(self, field: str, names: tuple[str, ...]) -> tuple[StatusCode, str] | None:
        if not names:
            return None
        if len(names) > self.limits.names:
            return StatusCode.RESOURCE_EXHAUSTED, f"{field}: {len(names)} names, at most {self.limits.names} are served"
        longest = max(names, key=len)
        if len(longest) > self.limits.name_length:
            found, allowed = f"{longest[:40]!r}… has {len(longest)} characters", self.limits.name_length
            return StatusCode.INVALID_ARGUMENT, f"{field}: the name {found}, at most {allowed} are allowed"
        return None

    def _close(self, code: StatusCode, message: str) -> tuple[Effect, ...]:
        self._closed = True
        return (Close(code, message),)

    def _receive_sotw(self, type_url: str, request: SotwRequest, now_s: float) -> tuple[Effect, ...]:
        if type_url not in _RANK:
            return self._note_unknown(type_url)
        watch = self._watches.get(type_url) or self._add(SotwWatch(type_url))
        if not isinstance(watch, SotwWatch):
            raise TypeError("a state-of-the-world request on a delta stream")
        before = watch.subscription
        effects = watch.receive(request, now_s)
        self._measure(before, watch.subscription)
        return effects

    def _receive_delta(self, type_url: str, request: DeltaRequest, now_s: float) -> tuple[Effect, ...]:
        effects: tuple[Effect, ...] = ()
        if type_url not in _RANK:
            effects = self._note_unknown(type_url)
            if self._closed:
                return effects
        watch = self._watches.get(type_url) or self._add(DeltaWatch(type_url))
        if not isinstance(watch, DeltaWatch):
            raise TypeError("a delta request on a state-of-the-world stream")
        if type_url not in _RANK:
            watch.is_known, watch.legacy = False, True
        before = watch.subscription
        effects += watch.receive(request, now_s, self._endpoints_to_resend(request) if watch.is_endpoints else ())
        self._measure(before, watch.subscription)
        return effects

    def _measure(self, before: Subscription | None, after: Subscription | None) -> None:
        if after is not before:
            self._name_bytes += _length(after) - _length(before)

    def _endpoints_to_resend(self, request: DeltaRequest) -> Collection[str]:
        """On reconnect, endpoints are sent again for clusters that were sent on this stream (XP-99)."""
        sent, self._clusters_sent = self._clusters_sent, set()
        return request.initial_versions.keys() if self.limits.resend_eds_on_reconnect else sent

    def _note_unknown(self, type_url: str) -> tuple[Effect, ...]:
        if type_url in self._unknown:
            return ()
        if len(self._unknown) >= MAX_UNKNOWN_TYPES:
            return self._close(
                StatusCode.RESOURCE_EXHAUSTED,
                f"type_url: more than {MAX_UNKNOWN_TYPES} types that this server does not have",
            )
        self._unknown.add(type_url)
        return (UnknownType(type_url),)

    def _add(self, watch: SotwWatch | DeltaWatch) -> SotwWatch | DeltaWatch:
        watches = sorted((*self._watches.values(), watch), key=lambda each: _RANK.get(each.type_url, len(_RANK)))
        self._watches = {each.type_url: each for each in watches}
        return watch

    # -- responses

    def _push(self, watch: SotwWatch | DeltaWatch, state: NodeState, now_s: float) -> Response | Withheld | None:
        blocked = watch.blocked_until_s(now_s) is not None
        urgent = watch.forced or watch.greeting  # is sent without waiting for an answer (XP-123)
        if not urgent and (blocked or (watch.leads_traffic and self._waits_for_clusters(state, now_s))):
            return None
        clusters = self._watches.get(CLUSTER)
        if watch.is_endpoints and (clusters is None or not (clusters.marked or clusters.leaving)):
            only = watch.only_change(state)
            if only is not None:
                watch.dirty.clear()
                return self._send(watch, Difference([only], [only]), now_s)
        later: Collection[str] = ()
        leaving = Leaving(self._epoch, now_s)
        if watch.removed_last and watch.may_lose(state):
            watch.removes_now = self._release_at_s(watch.type_url, leaving) <= now_s
        if watch.is_endpoints and clusters is not None:
            watch.kept_endpoints = ordering.kept_endpoints(clusters)
            if clusters.marked:
                watch.removes_now = False
                later = ordering.endpoints_due_later(clusters, state)
        known = state if watch.is_known else _NOTHING
        difference = watch.difference(known, self.limits, blocked=blocked, later=later, leaving=leaving)
        return self._send(watch, difference, now_s) if difference else None

    def _waits_for_clusters(self, state: NodeState, now_s: float) -> bool:
        """Routes to a cluster that the client does not have yet follow it and its endpoints (XP-93, XP-94)."""
        clusters = self._watches.get(CLUSTER)
        if clusters is None:
            return False
        if clusters.marked and clusters.blocked_until_s(now_s) is not None and ordering.adds_cluster(clusters, state):
            return True
        return self._waits_for_endpoints(now_s)

    def _waits_for_endpoints(self, now_s: float) -> bool:
        """A new cluster takes traffic once it has endpoints, which the client asks for after it (XP-94)."""
        endpoints = self._watches.get(ENDPOINT)
        if endpoints is not None and self._awaited_endpoints:
            missing = self._awaited_endpoints.items()
            self._awaited_endpoints = {n: until for n, until in missing if until > now_s and n not in endpoints.held}
        return bool(self._awaited_endpoints)

    def _farewell(self, state: NodeState, now_s: float) -> Response | Withheld | None:
        """Removals, when everything else of the push is done (XP-94)."""
        for watch in self._watches.values():
            if not watch.leaving or watch.blocked_until_s(now_s) is not None:
                continue
            due = [
                name
                for name, leaving in watch.leaving.items()
                if self._release_at_s(watch.type_url, leaving) <= now_s and watch.find(state, name) is None
            ]
            if watch.is_endpoints:
                kept = ordering.kept_endpoints(self._watches.get(CLUSTER))
                due = [name for name in due if name not in kept]
            if due:
                return self._send(watch, watch.release(state, due), now_s)
        return None

    def _release_at_s(self, type_url: str, leaving: Leaving) -> float:
        routing = tuple(self._watches[each] for each in ROUTING_TYPES if each in self._watches)
        return ordering.release_at_s(type_url, leaving, routing, alone=bool(self._only_type))

    def _send(self, watch: SotwWatch | DeltaWatch, difference: Difference, now_s: float) -> Response | Withheld:
        updated, removed = difference.updated, difference.removed
        if self.variant is Variant.SOTW:
            body = self._bodies.sotw(self._identifier, watch.type_url, updated)
        else:
            body = self._bodies.delta(self._identifier, watch.type_url, updated, removed)
        limit = self.limits.max_response
        if limit is not None and len(body) > limit:
            watch.forced.update(removed)
            return Withheld(watch.type_url, watch.version(), tuple(each.name for each in updated), len(body), limit)
        nonce = self._nonces()
        sent = Sent(nonce, "", now_s, self._epoch)
        if watch.type_url == CLUSTER:
            self._let_endpoints_follow(difference.changed, watch.held, now_s)
        watch.commit(difference, sent)
        sent.version = watch.version()
        tail = text(1, sent.version) + text(5, nonce)
        return Response(watch.type_url, nonce, sent.version, body, tail, len(updated), len(removed))

    def _let_endpoints_follow(
        self, clusters: Collection[XdsResource], held: Mapping[str, XdsResource], now_s: float
    ) -> None:
        """A cluster that was added or changed ends its warming with endpoints that come after it (XP-83)."""
        names = {cluster.eds_service_name for cluster in clusters} - {""}
        watch = self._watches.get(ENDPOINT)
        if watch is None:
            if self.variant is Variant.DELTA:
                self._clusters_sent |= names
            return
        added = {cluster.eds_service_name for cluster in clusters if cluster.name not in held} - {""}
        self._awaited_endpoints.update(dict.fromkeys(added - watch.held.keys(), now_s + ENDPOINTS_WAIT_S))
        subscription = watch.subscription or Subscription()
        watch.forced |= names if subscription.everything else names & subscription.names


def _length(subscription: Subscription | None) -> int:
    return sum(map(len, subscription.names)) if subscription is not None else 0


def _too_much(what: str, size: int, limit: int) -> tuple[StatusCode, str]:
    return StatusCode.RESOURCE_EXHAUSTED, f"{what}: {size} characters, at most {limit} are allowed"
