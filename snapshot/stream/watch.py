"""One type on one stream: what is subscribed, what the client has, what is marked to be looked at, what is unanswered.

Shared by both variants. Marks are names, never content (XP-118).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from snapshot.cache.resource import XdsResource
from snapshot.cache.snapshot import NodeState
from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, WILDCARD_TYPES
from snapshot.stream.effects import Acked, Effect, Nacked
from snapshot.stream.limits import ACK_WAIT_S, MAX_ANSWERED, MAX_OUTSTANDING, NACK_TEXT_BYTES
from snapshot.stream.requests import Nack
from snapshot.stream.status import NackRecord, SyncState, TypeStatus
from snapshot.stream.subscription import Subscription

ROUTING_TYPES: Final = (LISTENER, ROUTE)
"""Types that lead traffic to clusters."""
REMOVED_LAST: Final = frozenset({CLUSTER, ENDPOINT, SECRET})
"""Types that others point to: their removals leave after everything else of a push (XP-94)."""


@dataclass(slots=True)
class Sent:
    """A response that was handed out. `epoch` is the publication it was built after.

    `updated` and `removed` are what a NACK is about: names it updated, and what the client had of names it removed.
    """

    nonce: str
    version: str
    sent_at_s: float
    epoch: int
    updated: tuple[str, ...] = ()
    removed: tuple[XdsResource, ...] = ()
    answered: bool = False


class Leaving(NamedTuple):
    """A removal that waits for its turn (XP-94): the publication it was found after, and when."""

    epoch: int
    since_s: float


@dataclass(slots=True)
class Difference:
    """What one response is to say. `left` are names that did not fit, which stay marked (XP-132)."""

    updated: list[XdsResource] = field(default_factory=list)
    changed: list[XdsResource] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    left: set[str] = field(default_factory=set)
    empty_wanted: bool = False

    def __bool__(self) -> bool:
        return bool(self.updated or self.removed or self.empty_wanted)


class Watch:
    """One type on one stream.

    Invariants: every held or marked name is subscribed or under the wildcard, or leaving; what is leaving is held; a
    SotW watch has at most one unanswered response.
    """

    __slots__ = (
        "acked_epoch",
        "acked_version",
        "dirty",
        "everything",
        "forced",
        "greeting",
        "held",
        "is_complete",
        "is_endpoints",
        "is_known",
        "kept_endpoints",
        "last",
        "leads_traffic",
        "leaving",
        "legacy",
        "nack",
        "outstanding",
        "removed_last",
        "removes_now",
        "subscription",
        "type_url",
    )

    def __init__(self, type_url: str) -> None:
        self.type_url: Final = type_url
        self.is_complete: Final = type_url in WILDCARD_TYPES
        self.is_endpoints: Final = type_url == ENDPOINT
        self.removed_last: Final = type_url in REMOVED_LAST
        self.leads_traffic: Final = type_url in ROUTING_TYPES
        self.legacy = self.is_complete
        self.is_known = True
        self.subscription: Subscription | None = None
        self.held: dict[str, XdsResource] = {}
        self.dirty: set[str] = set()
        self.forced: set[str] = set()
        self.leaving: dict[str, Leaving] = {}
        self.kept_endpoints: Collection[str] = frozenset()
        self.removes_now = not self.removed_last
        self.everything = False
        self.greeting = False
        self.outstanding: dict[str, Sent] = {}
        self.last: Sent | None = None
        self.acked_version = ""
        self.acked_epoch = -1
        self.nack: NackRecord | None = None

    # -- what there is to do

    @property
    def marked(self) -> bool:
        """Something may have to be sent."""
        return bool(self.dirty or self.forced or self.everything or self.greeting)

    @property
    def subscribed(self) -> bool:
        """Something is subscribed."""
        return self.subscription is not None and (self.subscription.everything or bool(self.subscription.names))

    @property
    def refused(self) -> bool:
        """The newest response was refused: the client still uses what it had before."""
        nack, last = self.nack, self.last
        return self.subscribed and nack is not None and last is not None and nack.nonce == last.nonce

    def unanswered(self) -> Sent | None:
        """The newest response without an answer, or None."""
        return self.last if self.last is not None and not self.last.answered else None

    def blocked_until_s(self, now_s: float) -> float | None:
        """The time until which changes wait for an answer (XP-122, XP-125), or None when they do not."""
        waiting = self.unanswered()
        if waiting is None or now_s >= waiting.sent_at_s + ACK_WAIT_S:
            return None
        return waiting.sent_at_s + ACK_WAIT_S

    def publish(self, names: Collection[str]) -> None:
        """Mark what may have changed and concerns this stream; the cost is that of the smaller set (XP-74, XP-135)."""
        subscription = self.subscription
        if subscription is None or self.everything:
            return
        if subscription.everything:
            self.dirty.update(names)
        else:
            self.dirty.update(subscription.names.intersection(names))

    def look_at_everything(self) -> None:
        """Compare all of the subscription with the state at the next chance."""
        if self.subscription is not None:
            self.everything = True
            self.dirty.clear()

    def may_lose(self, state: NodeState) -> bool:
        """Whether a marked name may be gone from the state; only then removals have to be thought about."""
        if self.everything:
            return True
        names = state.names(self.type_url)
        return any(name not in names for name in self.dirty) or any(name not in names for name in self.forced)

    def defers(self, name: str) -> bool:
        """Whether the removal of this name has to wait for its turn (XP-94)."""
        return not self.removes_now or name in self.kept_endpoints

    # -- reading the state

    def find(self, state: NodeState, name: str) -> XdsResource | None:
        """The resource to give for `name`: named ones always, under a wildcard those of its list (XP-162)."""
        subscription = self.subscription
        if subscription is None:
            return None
        if name in subscription.names or (subscription.everything and name in state.names(self.type_url)):
            return state.get(self.type_url, name)
        return None

    def only_change(self, state: NodeState) -> XdsResource | None:
        """What to send where one held name is marked, its content is new and nothing else has to be thought of.

        None: `difference` decides. Nearly every push of a large mesh is one such change of endpoints.
        """
        if len(self.dirty) != 1 or self.forced or self.everything or self.greeting or self.leaving:
            return None
        (name,) = self.dirty
        held = self.held.get(name)
        resource = self.find(state, name) if held is not None else None
        return resource if resource is not None and held is not None and held.version != resource.version else None

    def candidates(self, state: NodeState) -> set[str]:
        """All names that the subscription, the state or the client may have."""
        subscription = self.subscription
        names = set(self.held)
        if subscription is not None:
            names |= subscription.names
            if subscription.everything:
                names.update(state.names(self.type_url))
        return names

    # -- answers

    def answer(self, nonce: str, error: Nack | None, now_s: float) -> tuple[Effect, ...]:
        """ACK or NACK of the response with this nonce; nothing for an unknown one (XP-46, XP-49)."""
        sent = self.outstanding.get(nonce)
        if sent is None:
            return ()
        if error is not None:
            return (self._refused(sent, error, now_s),)
        if sent.answered:
            return ()
        self._settle(sent)
        self.nack = None
        self.acked_version = sent.version
        self.acked_epoch = sent.epoch
        self.on_acked(sent)
        return (Acked(self.type_url, nonce, sent.version, now_s - sent.sent_at_s),)

    def _refused(self, sent: Sent, error: Nack, now_s: float) -> Nacked:
        self._settle(sent)
        detail = cut(error.message)
        self.nack = NackRecord(now_s, sent.version, sent.nonce, detail)
        self.on_refused(sent)
        return Nacked(self.type_url, sent.nonce, sent.version, detail)

    def on_acked(self, sent: Sent) -> None:
        """What a variant does when a response was taken."""

    def on_refused(self, sent: Sent) -> None:
        """What a variant remembers of a refused response."""

    def _settle(self, sent: Sent) -> None:
        """Older responses count as answered too (XP-48); they stay known for a late complaint of their own (XP-47)."""
        for other in self.outstanding.values():
            other.answered = True
            if other is sent:
                break
        if len(self.outstanding) <= MAX_ANSWERED:
            return
        answered = [nonce for nonce, other in self.outstanding.items() if other.answered]
        for nonce in answered[:-MAX_ANSWERED]:
            del self.outstanding[nonce]

    def record(self, sent: Sent) -> None:
        """A response goes out now."""
        self.outstanding[sent.nonce] = sent
        self.last = sent
        while len(self.outstanding) > MAX_OUTSTANDING:
            del self.outstanding[next(iter(self.outstanding))]

    # -- for people

    def status(self, *, ready: bool) -> TypeStatus:
        """How this type stands (XP-164)."""
        last = self.last
        return TypeStatus(
            type_url=self.type_url,
            state=self._sync_state(ready=ready),
            sent_version=last.version if last else self.acked_version,
            acked_version=self.acked_version,
            nonce=last.nonce if last else "",
            sent_at_s=last.sent_at_s if last else None,
            nack=self.nack,
            resources=self.held,
        )

    def _sync_state(self, *, ready: bool) -> SyncState:
        if not ready or not self.is_known:
            return SyncState.UNKNOWN
        if self.nack is not None:
            return SyncState.ERROR
        if self.last is None and not self.held:
            return SyncState.NOT_SENT
        if self.unanswered() is not None or self.marked or self.leaving:
            return SyncState.STALE
        return SyncState.SYNCED

    def check_invariants(self) -> None:
        """Raise AssertionError with the state when an invariant is broken. Called by every test."""
        subscription = self.subscription or Subscription()
        for label, names in self._named_sets():
            if not subscription.everything and not set(names) <= subscription.names | self.leaving.keys():
                raise AssertionError(f"{label} outside the subscription: {set(names) - subscription.names}")
        if not self.leaving.keys() <= self.held.keys():
            raise AssertionError(f"leaving, yet not held: {self.leaving.keys() - self.held.keys()}")
        if len(self.outstanding) > MAX_OUTSTANDING or any(key != sent.nonce for key, sent in self.outstanding.items()):
            raise AssertionError(f"outstanding: {self.outstanding}")
        if self.nack is not None and len(self.nack.detail.encode()) > NACK_TEXT_BYTES:
            raise AssertionError("a complaint longer than its limit")

    def _named_sets(self) -> Iterable[tuple[str, Iterable[str]]]:
        yield "held", self.held
        yield "dirty", self.dirty


def cut(message: str) -> str:
    """`message` within 4 KB of UTF-8 (XP-58)."""
    return message.encode(errors="replace")[:NACK_TEXT_BYTES].decode(errors="ignore")
