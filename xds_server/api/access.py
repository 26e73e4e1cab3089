"""Who calls, and what they may do (R §4.8, architecture §8)."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import Final

from starlette.requests import Request

from xds_server.api.errors import ApiError
from xds_server.config.tree import ADMIN, AUTHENTICATED, UNAUTHENTICATED, Grant, ViewConfigDump
from xds_server.tokens.authority import Authority
from xds_server.tokens.subject import TokenError, User

ANONYMOUS: Final = User("mesh-system:anonymous", (UNAUTHENTICATED,))
LOCAL_ADMIN: Final = User(ADMIN, (ADMIN, AUTHENTICATED))
_NOT_DIRECT: Final = (
    *("forwarded", "via", "origin", "x-forwarded", "x-original-", "x-real-ip", "x-client-ip", "x-cluster-client-ip"),
    *("x-envoy-", "x-amzn-", "x-appengine-", "x-azure-", "x-arr-", "true-client-ip", "cf-", "fastly-", "fly-"),
)
"""Beginnings of headers that a proxy or a web page adds."""
_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]@/]+))(?::[0-9]{0,5})?")
_OWN_SITE: Final = frozenset({"", "none", "same-origin"})
_AS_ADMIN: Final = (
    "authorization",
    (
        "this needs an administrator: call it directly on the machine of the control plane, by localhost or a "
        "loopback address, or send 'Authorization: Bearer <token>' with an admin user token (file admin-token in the "
        "data directory; kumactl: --token-file)"
    ),
)


async def identify(request: Request, authority: Authority, *, localhost_is_admin: bool) -> User:
    """The caller. Raises ApiError 401 for a bad token."""
    if localhost_is_admin and is_operator(request):
        return LOCAL_ADMIN
    authorization = request.headers.get("authorization")
    if authorization is None:
        return ANONYMOUS
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise ApiError(401, "Unauthenticated", title="Invalid authentication data")
    try:
        user = await authority.verify_user(token.strip())
    except TokenError as error:
        cause = ("authorization", str(error))
        raise ApiError(401, "Unauthenticated", [cause], title="Invalid authentication data") from error
    return User(user.name, (*user.groups, AUTHENTICATED))


def is_operator(request: Request) -> bool:
    """Whether the request comes straight from a process on this machine, and not by way of a web page or a proxy.

    HTTP/1.0 is what nginx speaks to what is behind it, without a word of who called, unless it is told otherwise.
    """
    headers = request.headers
    return (
        request.client is not None
        and is_loopback(request.client.host)
        and not any(name.startswith(_NOT_DIRECT) for name in headers)
        and request.scope.get("http_version") != "1.0"
        and _OWN_SITE.issuperset(headers.getlist("sec-fetch-site"))
        and _local_host(headers.getlist("host"))
    )


def is_loopback(host: str) -> bool:
    """Whether this is an address of loopback; IPv4 in IPv6 counts as IPv4."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def _local_host(hosts: list[str]) -> bool:
    """A name that others can point at loopback (DNS rebinding) is not local."""
    if len(hosts) != 1:
        return False
    host = _HOST.fullmatch(hosts[0])
    if host is None:
        return False
    name = host["v6"] or host["name"]
    return name.lower() == "localhost" or is_loopback(name)


def require(user: User, grant: Grant | ViewConfigDump, action: str) -> None:
    """Raises ApiError 403 unless the user, or a group of his, is granted; `action` names what was tried."""
    if user.name in grant.users or any(group in grant.groups for group in user.groups):
        return
    raise ApiError(403, action.format(user=f"{user.name}/{','.join(user.groups)}"), [_AS_ADMIN], title="Access Denied")


def of_type(type_name: str) -> str:
    """The action of touching a resource of that type."""
    return f'user "{{user}}" cannot access the resource of type "{type_name}"'


ACTION: Final = "action not allowed"
