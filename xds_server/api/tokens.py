"""POST `/tokens/…` (R §5.1). Anybody may ask whom the access settings grant it; the answer is the bare token."""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec
from starlette.responses import Response

from xds_server.api.access import ACTION, require
from xds_server.api.body import read_document
from xds_server.api.errors import ApiError
from xds_server.api.parts import ApiParts
from xds_server.api.responses import text_response
from xds_server.api.routing import Call, Handler
from xds_server.config.durations import parse_duration_s
from xds_server.tokens.authority import TEN_YEARS_S
from xds_server.tokens.subject import PROXY_TYPES

_TITLE: Final = "Could not issue a token"
_INVALID: Final = "Invalid request"
_MAX_VALID_S: Final = 100 * 365 * 24 * 3600.0
_ZONE: Final = (
    "zone tokens are not supported by this version, which has one zone. Supported: /tokens/dataplane, /tokens/user"
)

RequestT = TypeVar("RequestT", bound=msgspec.Struct)
Text = Annotated[str, msgspec.Meta(max_length=1000)]


class DataplaneTokenRequest(msgspec.Struct, frozen=True, rename="camel"):
    """Body of `/tokens/dataplane`; null is as good as absent."""

    mesh: Text | None = None
    name: Text | None = None
    tags: dict[Text, list[Text]] | None = None
    type: Text | None = None
    valid_for: Text | None = None


class UserTokenRequest(msgspec.Struct, frozen=True, rename="camel"):
    """Body of `/tokens/user`."""

    name: Text | None = None
    groups: list[Text] | None = None
    valid_for: Text | None = None


class Tokens:
    """The handlers."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self.dataplane = Handler(_TITLE, self._dataplane, "text/plain")
        self.user = Handler(_TITLE, self._user, "text/plain")
        self.zone = Handler(_TITLE, self._zone)

    async def _dataplane(self, call: Call) -> Response:
        require(call.user, self._parts.config.access.static.generate_dp_token, ACTION)
        request = await self._body(call, DataplaneTokenRequest)
        causes = [] if request.mesh else [("mesh", "cannot be empty")]
        valid_for_s = _valid_for_s(request.valid_for, causes) if request.valid_for else TEN_YEARS_S
        if request.type and request.type not in PROXY_TYPES:
            causes.append(("type", f"{request.type} is not a valid proxy type"))
        elif request.type and request.type != PROXY_TYPES[0]:
            causes.append(("type", f"{request.type} is not supported by this version. Supported: {PROXY_TYPES[0]}"))
        _refuse(causes)
        token = await self._parts.authority.issue_dataplane(
            request.mesh or "", request.name or "", request.tags or {}, request.type or "", valid_for_s
        )
        return text_response(token)

    async def _user(self, call: Call) -> Response:
        require(call.user, self._parts.config.access.static.generate_user_token, ACTION)
        request = await self._body(call, UserTokenRequest)
        causes = [] if request.name else [("name", "cannot be empty")]
        valid_for_s = 0.0
        if request.valid_for:
            valid_for_s = _valid_for_s(request.valid_for, causes)
        else:
            causes.append(("validFor", "cannot be empty"))
        _refuse(causes)
        return text_response(
            await self._parts.authority.issue_user(request.name or "", request.groups or (), valid_for_s)
        )

    async def _zone(self, call: Call) -> Response:
        require(call.user, self._parts.config.access.static.generate_dp_token, ACTION)
        raise ApiError(400, _INVALID, [("type", _ZONE)], title=_INVALID)

    async def _body(self, call: Call, kind: type[RequestT]) -> RequestT:
        document = await read_document(call.request, self._parts.config.api_server.body_limit, _INVALID)
        try:
            return msgspec.convert(document, kind)
        except msgspec.ValidationError as error:
            raise ApiError(400, _INVALID, [("body", str(error))], title=_INVALID) from error


def _valid_for_s(text: str, causes: list[tuple[str, str]]) -> float:
    try:
        seconds = parse_duration_s(text)
    except ValueError as error:
        causes.append(("validFor", f"is invalid: {error}"))
        return 0.0
    if not 0 < seconds <= _MAX_VALID_S:
        causes.append(("validFor", "is invalid: must be positive and at most 876000h"))
    return seconds


def _refuse(causes: list[tuple[str, str]]) -> None:
    if causes:
        raise ApiError(400, _INVALID, causes, title=_INVALID)
