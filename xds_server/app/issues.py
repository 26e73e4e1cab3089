"""Says in the log what has no effect, when it begins and when it ends, and counts it.

Looks at most once a second, and only after something was built: an idle control plane does nothing here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from snapshot.engine.world import Issue

LOOK_S: Final = 1.0
SHOWN: Final = 20
"""Most issues written out in one look; of the others only the number is told."""

_log = structlog.get_logger("issues")


class IssueLog:
    """Follows the issues; `told(count)` gets their number. Belongs to the running loop."""

    def __init__(self, issues: Callable[[], Sequence[Issue]], told: Callable[[int], None]) -> None:
        self._issues = issues
        self._told = told
        self._known: frozenset[Issue] = frozenset()
        self._timer: asyncio.TimerHandle | None = None

    def built(self) -> None:
        """Something was built: look soon."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self.look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def look(self) -> None:
        """Tell the difference to the last look."""
        self._timer = None
        now = frozenset(self._issues())
        self._told(len(now))
        self._tell(_log.warning, "an object has no effect, or only in part", now - self._known)
        self._tell(_log.info, "an object has its effect again, or is gone", self._known - now)
        self._known = now

    @staticmethod
    def _tell(say: Callable[..., None], event: str, issues: frozenset[Issue]) -> None:
        ordered = sorted(issues, key=lambda issue: (issue.object, issue.reason, issue.proxy or ("", "")))
        for issue in ordered[:SHOWN]:
            proxy = f"{issue.proxy.mesh}.{issue.proxy.name}" if issue.proxy else None
            say(event, **issue.object._asdict(), reason=issue.reason, proxy=proxy)
        if len(ordered) > SHOWN:
            say(event, others=len(ordered) - SHOWN)
