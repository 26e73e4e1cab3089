"""The state-of-the-world variant of one type: whole lists of names, one version for the type (P §3, §8, §10, §12)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from typing import Final

from snapshot.cache.resource import XdsResource
from snapshot.cache.snapshot import NodeState
from snapshot.stream.bodies import cost, empty_endpoints
from snapshot.stream.effects import Effect
from snapshot.stream.limits import Limits
from snapshot.stream.requests import SotwRequest
from snapshot.stream.subscription import Subscription
from snapshot.stream.watch import Difference, Leaving, Sent, Watch

_NO_NAMES: Final[frozenset[str]] = frozenset()


class SetVersion:
    """The version of a set of resources, a sum of their content hashes: one change costs one step (XP-60, XP-63)."""

    __slots__ = ("_members", "_sum")

    def __init__(self) -> None:
        self._members: dict[str, XdsResource] = {}
        self._sum = 0

    def update(self, state: NodeState, type_url: str, names: Iterable[str]) -> None:
        """Take the present content of `names` into account."""
        present = state.names(type_url)
        for name in names:
            resource = state.get(type_url, name) if name in present else None
            old = self._members.pop(name, None)
            if old is not None:
                self._sum -= int(old.version, 16)
            if resource is not None:
                self._members[name] = resource
                self._sum += int(resource.version, 16)

    def reset(self, state: NodeState, type_url: str) -> None:
        """Take the whole of the state, forgetting what was."""
        self._members, self._sum = {}, 0
        self.update(state, type_url, state.names(type_url))

    def alone(self) -> str:
        """Sixteen hexadecimal digits for the set."""
        return _digits(len(self._members), self._sum)

    def with_kept(self, kept: Iterable[XdsResource]) -> str:
        """Sixteen hexadecimal digits for the set and `kept`, which is still sent although it left the set."""
        extra = [resource for resource in kept if resource.name not in self._members]
        total = self._sum + sum(int(resource.version, 16) for resource in extra)
        return _digits(len(self._members) + len(extra), total)


def _digits(count: int, total: int) -> str:
    return hashlib.blake2b(b"%d:%x" % (count, total), digest_size=8).hexdigest()


class SotwWatch(Watch):
    """One type on one SotW stream.

    `listed` is the list of the last request as it came. `latent` are names that a stale request named: they are sent
    with the next response (XP-45). `changed` are names of the whole node, subscribed or not, whose part in the version
    is to be computed again (None: all of them).
    """

    __slots__ = ("changed", "claimed_version", "latent", "latent_everything", "listed", "set_version")

    def __init__(self, type_url: str) -> None:
        super().__init__(type_url)
        self.latent: set[str] = set()
        self.listed: tuple[str, ...] | None = None
        self.latent_everything = False
        self.set_version = SetVersion()
        self.changed: set[str] | None = None
        self.claimed_version = ""

    def receive(self, request: SotwRequest, now_s: float) -> tuple[Effect, ...]:
        """Take a request."""
        before = self.subscription
        if before is not None and request.names == self.listed:
            after, named = before, _NO_NAMES  # as most often: an answer repeats the list
        else:
            after = (before or Subscription()).listing(request.names, legacy=self.legacy)
            named = after.names - before.names if before is not None else after.names
            self.subscription, self.listed = after, request.names
            self._forget_dropped(before, after)
        if before is None:
            self.claimed_version = request.version_info
        elif self.last is not None and request.nonce != self.last.nonce:
            self.latent |= named
            self.latent_everything |= after.everything and not before.everything
            return ()
        was_answered = self.last is not None and self.last.answered
        effects = self.answer(request.nonce, request.error, now_s)
        if named or self.latent:
            self.forced |= named | self.latent & after.names
            self.latent.clear()
        if after.everything and (before is None or not before.everything or self.latent_everything):
            self.latent_everything = False
            self.look_at_everything()
            self.greeting = True
        elif before is None:
            self.greeting = self.is_complete and bool(after.names)
        elif self.is_endpoints and was_answered and request.error is None and after == before:
            self._repeat(after)
        return effects

    def _repeat(self, subscription: Subscription) -> None:
        """Envoy asks again while a cluster is warming: every repeat is answered (XP-82)."""
        self.forced |= subscription.names
        if subscription.everything:
            self.forced |= self.held.keys()

    def _forget_dropped(self, before: Subscription | None, after: Subscription) -> None:
        """What is no longer subscribed is no longer known to be held: naming it again sends it (XP-25)."""
        if before is None or after.everything or (after.names >= before.names and not before.everything):
            return
        for name in [name for name in self.held if name not in after.names]:
            del self.held[name]
            self.leaving.pop(name, None)
        self.dirty &= after.names
        self.forced &= after.names
        self.latent &= after.names
        self.greeting = False

    def publish(self, names: Collection[str]) -> None:
        """Every name of the node counts for the version, subscribed or not (XP-26)."""
        super().publish(names)
        if self.changed is not None:
            self.changed.update(names)

    def look_at_everything(self) -> None:
        """The version is computed anew, too."""
        super().look_at_everything()
        self.changed = None

    # -- what to send

    def only_change(self, state: NodeState) -> XdsResource | None:
        """As in `Watch`; latent names and claims are for `difference`."""
        if self.latent or self.latent_everything or self.claimed_version:
            return None
        found = super().only_change(state)
        if found is not None:
            self._count(state)
        return found

    def difference(
        self, state: NodeState, limits: Limits, *, blocked: bool, later: Collection[str], leaving: Leaving
    ) -> Difference:
        """What the client lacks. `blocked`: only what does not wait; `later`: names that are not due yet."""
        if self.latent or self.latent_everything:
            self._take_latent()
        self._count(state)
        if self.claimed_version and self._take_claim(state):
            return Difference()
        if self.is_complete:
            return self._complete(state, leaving)
        return self._incremental(state, limits, blocked=blocked, later=later)

    def _take_latent(self) -> None:
        self.forced |= self.latent
        self.latent.clear()
        if self.latent_everything:
            self.latent_everything = False
            self.look_at_everything()
            self.greeting = True

    def _count(self, state: NodeState) -> None:
        changed = self.changed
        if changed is None:
            self.set_version.reset(state, self.type_url)
            self.changed = set()
        elif changed:
            self.set_version.update(state, self.type_url, changed)
            changed.clear()

    def _take_claim(self, state: NodeState) -> bool:
        """A wildcard client that has exactly this version from an earlier stream needs no answer (XP-101)."""
        claimed, self.claimed_version = self.claimed_version, ""
        subscription = self.subscription
        if subscription is None or not self.is_complete or not subscription.everything or subscription.names:
            return False
        if claimed != self.version():
            return False
        for name in state.names(self.type_url):
            resource = state.get(self.type_url, name)
            if resource is not None:
                self.held[name] = resource
        self.acked_version = claimed
        self._clear_marks()
        return True

    def _clear_marks(self) -> None:
        self.dirty.clear()
        self.forced.clear()
        self.everything = self.greeting = False

    def _take_marks(self, state: NodeState) -> set[str]:
        if self.everything:
            self.dirty |= self.candidates(state)
            self.everything = False
        return self.dirty | self.forced

    def _complete(self, state: NodeState, leaving: Leaving) -> Difference:
        """LDS and CDS: all or nothing; clusters that left stay in the message until their turn comes (XP-68, XP-94)."""
        difference = Difference(empty_wanted=self.greeting or bool(self.forced))
        gone = False
        for name in sorted(self._take_marks(state)):
            resource, held = self.find(state, name), self.held.get(name)
            if resource is not None:
                self.leaving.pop(name, None)
                if held is None or held.version != resource.version:
                    difference.changed.append(resource)
            elif held is not None and self.defers(name):
                self.leaving.setdefault(name, leaving)
            elif held is not None:
                del self.held[name]
                self.leaving.pop(name, None)
                gone = True
        self._clear_marks()
        if difference.changed or gone or difference.empty_wanted:
            difference.updated = self._all(state)
            difference.empty_wanted = True
        return difference

    def _all(self, state: NodeState) -> list[XdsResource]:
        subscription = self.subscription or Subscription()
        names = set(subscription.names)
        if subscription.everything:
            names.update(state.names(self.type_url))
        present = {name: resource for name in names if (resource := self.find(state, name)) is not None}
        present.update((name, self.held[name]) for name in self.leaving)
        return [present[name] for name in sorted(present)]

    def _incremental(self, state: NodeState, limits: Limits, *, blocked: bool, later: Collection[str]) -> Difference:
        """EDS, RDS, SDS: what changed or was newly named; a removal says nothing (XP-70, XP-71)."""
        difference = Difference(empty_wanted=self.greeting)
        if blocked and not self.greeting:
            names = set(self.forced)
        else:
            names = self._take_marks(state).difference(later) | self.forced
        budget = limits.part_bytes
        for name in sorted(names):
            resource = self._resource_for(state, name)
            if resource is None:
                continue
            held = self.held.get(name)
            if name not in self.forced and held is not None and held.version == resource.version:
                continue
            if difference.updated and cost(resource) > budget:
                difference.left.add(name)
                continue
            budget -= cost(resource)
            difference.updated.append(resource)
        done = names - difference.left if difference.left else names
        self.dirty -= done
        self.forced -= done
        return difference

    def _resource_for(self, state: NodeState, name: str) -> XdsResource | None:
        """Endpoints asked for by name are always answered: for a kept cluster with its own, else empty (XP-88)."""
        resource = self.find(state, name)
        if resource is not None or not self.is_endpoints or name not in self.forced:
            return resource
        if self.subscription is None or name not in self.subscription.names:
            return None
        kept = self.held.get(name) if name in self.kept_endpoints else None
        return kept or empty_endpoints(name)

    def release(self, state: NodeState, names: Collection[str]) -> Difference:
        """The message without the resources whose turn to leave has come."""
        for name in names:
            del self.leaving[name]
            del self.held[name]
        return Difference(updated=self._all(state), empty_wanted=True)

    def commit(self, difference: Difference, sent: Sent) -> None:
        """The difference goes out as `sent`."""
        self.held.update((resource.name, resource) for resource in difference.updated)
        self.greeting = False
        self.outstanding.clear()
        self.record(sent)

    def version(self) -> str:
        """`version_info`: of the node's whole set of this type, with what is kept in it for the time being."""
        if not self.leaving:
            return self.set_version.alone()
        return self.set_version.with_kept(self.held[name] for name in self.leaving)
