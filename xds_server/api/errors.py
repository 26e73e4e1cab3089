"""The one shape of an error (R §4.2), and which failure becomes which."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from snapshot.model.codec import DecodeError
from snapshot.model.validation import ValidationError, Violation
from xds_server.store.contract import AlreadyExists, Conflict, NotFound, StoreUnavailable
from xds_server.tokens.keys import SigningKeyNotFound

INVALID = "Resource is not valid"
_MOST_CAUSES = 1000


class ApiError(Exception):
    """An answer that is an error. `title` "" takes that of the route."""

    def __init__(self, status: int, details: str, causes: Iterable[tuple[str, str]] = (), *, title: str = "") -> None:
        self.status = status
        self.title = title
        self.details = details
        self.causes = tuple(Violation(*cause) for cause in causes)
        super().__init__(details)

    def body(self, title: str) -> dict[str, Any]:
        """The body, with the route's title where there is no other; `causes` only when there are some."""
        found: dict[str, Any] = {"title": self.title or title, "details": self.details}
        if self.causes:
            found["causes"] = [cause._asdict() for cause in self.causes[:_MOST_CAUSES]]
            if more := self.causes[_MOST_CAUSES:]:
                found["causes"].append({"field": "", "message": f"and {len(more)} more"})
        return found


class PlainError(Exception):
    """An answer in plain text, as Kuma gives for what no handler saw."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.text = text
        self.headers = headers or {}
        super().__init__(text)


def api_error(failure: Exception) -> ApiError | None:
    """The answer to a failure of a lower layer; None for what nobody expected."""
    match failure:
        case ApiError():
            return failure
        case ValidationError() | DecodeError():
            return ApiError(400, INVALID, failure.violations)
        case SigningKeyNotFound():
            return ApiError(404, str(failure), title="Signing Key not found")
        case NotFound():
            return ApiError(404, "Not found")
        case Conflict() | AlreadyExists():
            return ApiError(409, f"Conflict: {failure}. Somebody else changed it at the same moment; try again")
        case StoreUnavailable():
            return ApiError(503, f"The store is not available: {failure}. Nothing was changed; try again")
        case _:
            return None
