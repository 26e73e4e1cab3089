"""The delta variant of one type: names come and go, each resource has its own version (P §4, §9, §12)."""

from __future__ import annotations

from collections.abc import Collection

from snapshot.cache.resource import XdsResource
from snapshot.cache.snapshot import NodeState
from snapshot.stream.bodies import cost
from snapshot.stream.effects import Effect
from snapshot.stream.limits import Limits
from snapshot.stream.requests import DeltaRequest
from snapshot.stream.subscription import WILDCARD_NAME, Subscription
from snapshot.stream.watch import Difference, Leaving, Sent, Watch


class DeltaWatch(Watch):
    """One type on one delta stream.

    `claimed` is what the client says it has from an earlier stream (name to version), until it has been compared.
    `unremoved` are names whose removal was refused; `rejected` leads from a refused name to all of its response.
    """

    __slots__ = ("claimed", "first_answer", "holdings", "rejected", "unremoved")

    def __init__(self, type_url: str) -> None:
        super().__init__(type_url)
        self.claimed: dict[str, str] = {}
        self.unremoved: set[str] = set()
        self.rejected: dict[str, tuple[str, ...]] = {}
        self.holdings = 0
        self.first_answer = True

    def receive(self, request: DeltaRequest, now_s: float, resend: Collection[str]) -> tuple[Effect, ...]:
        """Take a message. `resend` are names that a first message gets even where it claims to have them (XP-99)."""
        before = self.subscription
        if before is not None and not request.subscribe and not request.unsubscribe:
            return self.answer(request.nonce, request.error, now_s)
        after = (before or Subscription()).changing(request.subscribe, request.unsubscribe, legacy=self.legacy)
        self.subscription = after
        effects = self.answer(request.nonce, request.error, now_s)
        if before is None:
            self._first(request, after, resend)
            before = Subscription()
        else:
            self.forced.update(after.names.intersection(request.subscribe))
        if after.everything and not before.everything:
            self.look_at_everything()
            self.greeting = not self.claimed
        self._unsubscribed(request, before, after)
        return effects

    def _first(self, request: DeltaRequest, after: Subscription, resend: Collection[str]) -> None:
        """Only here `initial_resource_versions` counts, and spares what it names (XP-96, XP-99)."""
        self.claimed = dict(request.initial_versions)
        self.everything = bool(self.claimed)
        self.forced.update(name for name in after.names if name not in self.claimed or name in resend)

    def _unsubscribed(self, request: DeltaRequest, before: Subscription, after: Subscription) -> None:
        if after.everything:
            # the wildcard may still cover the name, so the client must be told which it is (XP-38)
            self.forced.update(
                (before.names | set(request.subscribe)).intersection(request.unsubscribe) - {WILDCARD_NAME}
            )
        elif before.everything:
            for name in [name for name in self.held if name not in after.names]:
                self._forget(name)
            self.dirty &= after.names
            self.forced &= after.names
            self.everything = self.greeting = False
        else:
            for name in request.unsubscribe:
                if name not in after.names:
                    self._forget(name)

    def _forget(self, name: str) -> None:
        """Drop every record of the name: a later subscription starts anew (XP-37)."""
        self._let_go(name)
        self.claimed.pop(name, None)
        self.dirty.discard(name)
        self.forced.discard(name)
        self.leaving.pop(name, None)
        self.unremoved.discard(name)
        self.rejected.pop(name, None)

    # -- what to send

    def only_change(self, state: NodeState) -> XdsResource | None:
        """As in `Watch`; refusals and claims are for `difference`."""
        return None if self.unremoved or self.rejected or self.claimed else super().only_change(state)

    def difference(
        self, state: NodeState, limits: Limits, *, blocked: bool, later: Collection[str], leaving: Leaving
    ) -> Difference:
        """What the client lacks. `blocked`: only what does not wait; `later`: names that are not due yet."""
        if blocked and not self.greeting:
            names = set(self.forced)
        else:
            if self.everything:
                self.dirty |= self.candidates(state) | self.claimed.keys()
                self.everything = False
            names = self.dirty.difference(later) | self.forced
            if names and self.unremoved:
                names |= self.unremoved
        difference = Difference(empty_wanted=self.greeting)
        self._compare(state, names, difference, self._budget(limits), leaving)
        if difference.left:
            # the rest follows in a response of its own, the removals with the last one (XP-132)
            difference.left.update(difference.removed)
            difference.removed = []
        difference.changed = difference.updated
        done = names - difference.left if difference.left else names
        self.dirty -= done
        self.forced -= done
        return difference

    def _budget(self, limits: Limits) -> int:
        return limits.first_wildcard_bytes if self.first_answer and self.is_complete else limits.part_bytes

    def _compare(
        self, state: NodeState, names: set[str], difference: Difference, budget: int, leaving: Leaving
    ) -> None:
        """Sort `names` into the difference. Names refused together with one that changed join them."""
        queue = sorted(names) if len(names) > 1 else list(names)
        for name in queue:
            resource = self.find(state, name)
            if resource is None:
                self._compare_absent(state, name, difference, leaving)
            elif not self._lacks(name, resource):
                self._confirm(name, resource)
            elif difference.updated and cost(resource) > budget:
                difference.left.add(name)
            else:
                budget -= cost(resource)
                difference.updated.append(resource)
                if self.rejected:
                    queue += self._rejected_with(name, names)

    def _rejected_with(self, name: str, names: set[str]) -> list[str]:
        """What was refused together with `name`: added to `names`, and to be sent again."""
        again = [other for other in self.rejected.pop(name, ()) if other not in names]
        for other in again:
            self.rejected.pop(other, None)
        names.update(again)
        self.forced.update(again)
        return again

    def _lacks(self, name: str, resource: XdsResource) -> bool:
        if name in self.forced or name in self.unremoved:
            return True
        held = self.held.get(name)
        return (held.version if held else self.claimed.get(name)) != resource.version

    def _confirm(self, name: str, resource: XdsResource) -> None:
        """The client has this version, from this stream or from an earlier one."""
        self.leaving.pop(name, None)
        if self.claimed.pop(name, None) is not None:
            self._hold(resource)

    def _compare_absent(self, state: NodeState, name: str, difference: Difference, leaving: Leaving) -> None:
        if name in self.forced or name in self.unremoved:
            difference.removed.append(name)
        elif name in self.held:
            if self.defers(name):
                self.leaving.setdefault(name, leaving)
            else:
                difference.removed.append(name)
        elif name in self.claimed:
            # claimed, and no longer subscribed to: nothing to say while it exists (XP-100)
            if self.subscription is not None and state.get(self.type_url, name) is None:
                difference.removed.append(name)
            else:
                del self.claimed[name]

    def release(self, state: NodeState, names: Collection[str]) -> Difference:
        """The removals whose turn has come; `state` is not needed, a delta message says only what goes."""
        del state
        return Difference(removed=sorted(names))

    def commit(self, difference: Difference, sent: Sent) -> None:
        """The difference goes out as `sent`."""
        sent.updated = tuple([resource.name for resource in difference.updated])
        for resource in difference.updated:
            self.claimed.pop(resource.name, None)
            self.unremoved.discard(resource.name)
            self.leaving.pop(resource.name, None)
            self._hold(resource)
        if difference.removed:
            sent.removed = tuple(self.held[name] for name in difference.removed if name in self.held)
        for name in difference.removed:
            self._forget(name)
        self.greeting = False
        self.first_answer = False
        self.record(sent)

    def on_acked(self, sent: Sent) -> None:
        """What was refused before has been taken now."""
        for name in sent.updated if self.rejected else ():
            self.rejected.pop(name, None)

    def on_refused(self, sent: Sent) -> None:
        """Refused removals still count as held (XP-54); refused updates are sent again with the first that changes."""
        for resource in sent.removed:
            name = resource.name
            if name not in self.held and self._is_watched(name):
                self._hold(resource)
                self.unremoved.add(name)
        members = tuple(name for name in sent.updated if name in self.held)
        self.rejected.update(dict.fromkeys(members, members) if len(members) > 1 else {})

    def _is_watched(self, name: str) -> bool:
        return self.subscription is not None and (self.subscription.everything or name in self.subscription.names)

    def _hold(self, resource: XdsResource) -> None:
        self._let_go(resource.name)
        self.held[resource.name] = resource
        self.holdings += int(resource.version, 16)

    def _let_go(self, name: str) -> XdsResource | None:
        held = self.held.pop(name, None)
        if held is not None:
            self.holdings -= int(held.version, 16)
        return held

    def version(self) -> str:
        """`system_version_info`, for people: the same wherever the client holds the same (XP-62)."""
        return f"{self.holdings & (1 << 64) - 1:016x}"
