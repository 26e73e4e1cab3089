"""The rules of leases (architecture §7). Pure: what is known comes in, what must happen comes out; time is an argument.

A lease belongs to a proxy and names who holds it. Each grant has a new epoch; only the current epoch may write.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, assert_never


class Ending(enum.Enum):
    """How a stream ended."""

    LEFT = "left"
    """The peer closed it: FIN, RST, half-close."""
    VANISHED = "vanished"
    """The peer stopped answering keepalive pings."""
    SHUTDOWN = "shutdown"
    """We ended it. The proxy is alive as far as anybody knows."""


class State(enum.Enum):
    """Where a proxy is."""

    HELD = "held"
    """It has a stream, or had one when its control plane stopped."""
    LEAVING = "leaving"
    """Its last stream was closed; it goes unless it is back in time."""
    VANISHED = "vanished"
    """Its last stream died of silence: no endpoints, but it is kept for diagnosis until it expires."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things are waited for, in seconds."""

    leave_grace_s: float = 2.0
    cleanup_age_s: float = 72 * 3600.0
    restart_grace_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Lease:
    """What is stored. `until_s` (wall clock, Unix) is when a proxy that is not held must go.

    `run_id` is "" for Kuma's own kuma-dp. `holder` describes the peer to people.
    """

    epoch: int
    instance: str
    run_id: str = ""
    holder: str = ""
    state: State = State.HELD
    until_s: float | None = None

    def to_spec(self) -> dict[str, Any]:
        """The lease as the store keeps it."""
        spec: dict[str, Any] = {"epoch": self.epoch, "instance": self.instance, "state": self.state.value}
        spec |= {"runId": self.run_id, "holder": self.holder}
        return spec if self.until_s is None else spec | {"until": self.until_s}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Lease:
        """The inverse of `to_spec`."""
        return cls(
            spec["epoch"], spec["instance"], spec["runId"], spec["holder"], State(spec["state"]), spec.get("until")
        )


@dataclass(frozen=True, slots=True)
class Bid:
    """Who asks for the lease."""

    instance: str
    run_id: str


class Verdict(enum.Enum):
    """What to do with a bid."""

    JOIN = "join"
    """One more stream of the holder on the same instance: the lease stays as it is."""
    GRANT = "grant"
    """A new epoch for the bidder."""
    CONTEST = "contest"
    """Another run holds it: a new epoch only if that one does not answer."""


def admit(current: Lease | None, bid: Bid) -> Verdict:
    """Decide about a bid: the same run, or one without an id, is a reconnect, and the newest stream wins."""
    if current is None or current.state is not State.HELD:
        return Verdict.GRANT
    if bid.run_id and current.run_id and bid.run_id != current.run_id:
        return Verdict.CONTEST
    if current.instance != bid.instance or (bid.run_id and not current.run_id):
        return Verdict.GRANT
    return Verdict.JOIN


def next_epoch(current: Lease | None, head: int) -> int:
    """An epoch that no lease of this proxy ever had: each grant makes the log grow beyond the head it was made from."""
    return max(head, current.epoch if current else 0) + 1


def after_last_stream(lease: Lease, how: Ending, now_s: float, patience: Patience) -> Lease:
    """The lease once no stream of the proxy is left; unchanged where the control plane itself ended the last one."""
    match how:
        case Ending.LEFT:
            return replace(lease, state=State.LEAVING, until_s=now_s + patience.leave_grace_s)
        case Ending.VANISHED:
            return replace(lease, state=State.VANISHED, until_s=now_s + patience.cleanup_age_s)
        case Ending.SHUTDOWN:
            return lease
        case _:
            assert_never(how)


def goes_at_s(lease: Lease, instance_died_s: float, started_s: float, patience: Patience) -> float:
    """When a proxy without a stream here must go, by the wall clock.

    Held by an instance that is gone, at the latest since `instance_died_s`: when it had time to come back. Nothing goes
    within the grace after our own start.
    """
    due_s = lease.until_s if lease.until_s is not None else instance_died_s + patience.restart_grace_s
    return max(due_s, started_s + patience.restart_grace_s)
