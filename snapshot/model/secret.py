"""Secret (of a mesh) and GlobalSecret: bytes that only administrators may read (R §1.6)."""

from __future__ import annotations

from snapshot.model.meta import Spec


class Secret(Spec, frozen=True, kw_only=True):
    """The spec of both. `data` is printed as base64 and never logged."""

    data: bytes = b""

    def __repr__(self) -> str:
        return f"Secret(data=<{len(self.data)} bytes>)"
