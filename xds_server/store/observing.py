"""Names what a batch did, for the metrics (`store` histogram, R §9.6). The metrics themselves are telemetry's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from xds_server.store.contract import Delete, Fence, Operation, Put, Stored


def unobserved(operation: str, resource_type: str, seconds: float) -> None:
    """The observer where nobody measures."""


def observed_operations(operations: Sequence[Operation], stored: Sequence[Stored | None]) -> Iterator[tuple[str, str]]:
    """(create | update | delete, resource type) of each write that was carried out."""
    for operation, result in zip(operations, stored, strict=True):
        match operation:
            case Put():
                yield "create" if result is not None and result.version == 1 else "update", operation.key.type
            case Delete():
                yield "delete", operation.key.type
            case Fence():
                pass
