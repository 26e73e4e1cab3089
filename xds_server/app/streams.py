"""Joins the gRPC server to tokens, registration, the reconciler: each class is one port of `xds_server.ads.ports`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from snapshot.model.dataplane import Dataplane
from snapshot.model.meta import ProxyKey, ResourceKey
from xds_server.ads.ports import Ending, Identity, Refused
from xds_server.reconciler import Reconciler
from xds_server.registration import Claim, Hold, Registrar
from xds_server.registration import Ending as LeaseEnding
from xds_server.registration import Refused as RegistrationRefused
from xds_server.store import StoreError
from xds_server.tokens.authority import Authority
from xds_server.tokens.subject import BindingError, Subject, TokenError, User

ADMIN: Final = "mesh-system:admin"
NO_TOKEN: Final = "could not parse token: token contains an invalid number of segments"  # noqa: S105  # Kuma's text
FAILED: Final = "authentication failed: "
ENDINGS: Final[Mapping[Ending, LeaseEnding]] = {ending: LeaseEnding(ending.value) for ending in Ending}
HEALTH_WINDOW_S: Final = 0.05
HEALTH_RETRY_S: Final = 1.0

_log = structlog.get_logger(__name__)


class StreamAuthenticator:
    """Credentials of streams, by the one `Authority`. `required` False is `dpServer.auth.type: none`."""

    def __init__(self, authority: Authority, reconciler: Reconciler, *, required: bool) -> None:
        self._authority = authority
        self._reconciler = reconciler
        self._required = required
        self._watched: dict[object, tuple[Subject, Callable[[str], None]]] = {}
        authority.on_revoked(self._look)

    async def verify(self, authorization: Sequence[str], proxy: ProxyKey) -> Subject | None:
        """The subject of the one credential; None where none is needed."""
        if not self._required:
            return None
        if len(authorization) > 1:
            raise Refused("UNAUTHENTICATED", f"{FAILED}{len(authorization)} `authorization` values instead of one")
        if not authorization:
            raise Refused("UNAUTHENTICATED", FAILED + NO_TOKEN)
        try:
            return await self._authority.verify_stream(authorization[0].removeprefix("Bearer "), proxy.mesh)
        except TokenError as error:
            raise Refused("UNAUTHENTICATED", f"{FAILED}{error}") from error

    async def bind(self, subject: object, identity: Identity) -> None:
        """The token must cover the node id, and the Dataplane that came along or is stored."""
        carried = identity.carried
        if carried is not None and carried.key[1:] != tuple(identity.proxy):
            raise Refused(
                "PERMISSION_DENIED",
                f"{FAILED}the Dataplane in the node metadata is {carried.key.mesh}.{carried.key.name}, "
                f"the node id says {identity.node_id}",
            )
        if not isinstance(subject, Subject):
            return
        dataplane = carried.spec if carried is not None else self._reconciler.dataplane(identity.proxy)
        try:
            if dataplane is None:
                subject.check_node(*identity.proxy)
            else:
                subject.check(*identity.proxy, dataplane.tag_sets)
        except BindingError as error:
            raise Refused("PERMISSION_DENIED", f"{FAILED}{error}") from error

    async def is_admin(self, authorization: Sequence[str]) -> bool:
        """Whether this is a user token of an administrator; tokens of proxies are none."""
        try:
            user = (
                await self._authority.verify_user(authorization[0].removeprefix("Bearer ")) if authorization else None
            )
        except TokenError:
            return False
        return user is not None and _administrates(user)

    def watch(self, subject: object, revoked: Callable[[str], None]) -> Callable[[], None]:
        """Tell `revoked` when the subject's credential ends."""
        if not isinstance(subject, Subject):
            return _nothing
        token = object()
        self._watched[token] = (subject, revoked)
        return lambda: self._watched.pop(token, None) and None

    def _look(self) -> None:
        for subject, revoked in list(self._watched.values()):
            if (reason := self._authority.ended(subject)) is not None:
                revoked(f"{FAILED}{reason}")


def _administrates(user: User) -> bool:
    return user.name == ADMIN or ADMIN in user.groups


def _nothing() -> None:
    """Stops watching what nobody can revoke."""


class StreamRegistrar:
    """Leases of streams, by the one `Registrar`."""

    def __init__(self, registrar: Registrar) -> None:
        self._registrar = registrar

    async def register(self, identity: Identity, subject: object, ended: Callable[[str], None]) -> Hold:
        """Upsert the Dataplane where one came along, and take the lease."""

        def authorises(stored: Dataplane) -> str | None:
            if not isinstance(subject, Subject):
                return None
            try:
                subject.check(*identity.proxy, stored.tag_sets)
            except BindingError as error:
                return str(error)
            return None

        claim = Claim(
            proxy=identity.proxy,
            dataplane=identity.carried.spec if identity.carried is not None else None,
            run_id=identity.run_id,
            holder=identity.peer,
            authorises=authorises,
            is_alive=identity.is_alive,
            ended=ended,
        )
        try:
            return await self._registrar.register(claim)
        except RegistrationRefused as error:
            raise Refused("NOT_FOUND" if claim.dataplane is None else "PERMISSION_DENIED", str(error)) from error
        except StoreError as error:
            raise Refused("UNAVAILABLE", f"the store cannot be written right now: {error}; try again") from error

    async def release(self, lease: object, how: Ending) -> None:
        """The stream is gone."""
        assert isinstance(lease, Hold)  # noqa: S101  # what `register` answered
        await self._registrar.release(lease, ENDINGS[how])


class WatchedDataplanes:
    """Stored Dataplanes, as the reconciler knows them."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler

    def get(self, proxy: ProxyKey) -> Dataplane | None:
        """The newest version."""
        return self._reconciler.dataplane(proxy)

    def watch(self, proxy: ProxyKey, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` when it is written or deleted."""
        return self._reconciler.watch(ResourceKey("Dataplane", *proxy), lambda _stored: changed())
