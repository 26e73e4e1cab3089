"""Decides about one bootstrap request, in Kuma's order (R §7.2, X §9)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

from snapshot.model.admission import with_zone
from snapshot.model.codec import DecodeError, decode_spec
from snapshot.model.dataplane import Dataplane
from snapshot.model.meta import ProxyKey, ResourceKey
from snapshot.model.rules.mesh import membership_refusal
from snapshot.model.validation import Violation
from snapshot.registry import descriptor
from xds_server.bootstrap.request import BootstrapRequest, metadata_version
from xds_server.bootstrap.template import BootstrapValues, bootstrap
from xds_server.certs.pair import TlsPair, ca_fault
from xds_server.config import Config, ConfigError
from xds_server.store.contract import ResourceStore
from xds_server.tokens.authority import Authority
from xds_server.tokens.subject import Subject, TokenError

PROTOCOLS: Final = ("delta", "sotw")
_CREDENTIAL_REQUIRED: Final = (
    "Dataplane Token is required. Generate token using 'kumactl generate dataplane-token > /path/file' and provide it "
    "via --dataplane-token-file=/path/file argument to Kuma DP"
)
_NOT_A_CA: Final = (
    "A data plane proxy is trying to verify the control plane using the certificate which is not a certificate "
    "authority (basic constraint 'CA' is set to 'false').\nProvide CA that was used to sign a certificate used in the "
    "control plane by using 'kuma-dp run --ca-cert-file=file' or via KUMA_CONTROL_PLANE_CA_CERT_FILE"
)
_HELPERS: Final = "koguma.helpers"
_LARGE: Final = 64 * 1024
"""A Dataplane longer than this is only read for the holder of a token: reading takes time from everybody."""


class Outcome(Exception):  # noqa: N818  # an answer, not a fault
    """The request is answered by this status and text."""

    def __init__(self, status: int, text: str = "") -> None:
        self.status = status
        self.text = text
        super().__init__(text)


class _Proxy(NamedTuple):
    key: ProxyKey
    spec: Dataplane


async def never_taken(_proxy: ProxyKey, _run_id: str) -> str | None:
    """Where nobody keeps leases, no name is taken."""
    return None


class BootstrapGenerator:
    """Makes bootstraps; `tls` is the pair of the DP server and of ADS. Raises ConfigError where it lacks `xdsHost`.

    `taken` (`registration.Registrar.taken`) says why the name cannot be had, before Envoy is started for nothing.
    """

    def __init__(
        self,
        config: Config,
        store: ResourceStore,
        authority: Authority,
        tls: TlsPair,
        taken: Callable[[ProxyKey, str], Awaitable[str | None]] = never_taken,
    ) -> None:
        self._config = config
        self._store = store
        self._authority = authority
        self._taken = taken
        self.tls = tls
        host = config.bootstrap_server.params.xds_host
        if host and host not in tls.sans:
            names = ", ".join(tls.sans)
            raise ConfigError([f"bootstrapServer.params.xdsHost: {host!r} must be a name of the certificate: {names}"])

    async def generate(self, request: BootstrapRequest, host_header: str) -> dict[str, Any]:
        """The bootstrap as plain values. Raises Outcome."""
        host = _host(host_header)
        if self._config.dp_auth and not request.dataplane_token:
            raise Outcome(422, _CREDENTIAL_REQUIRED)
        params = self._config.bootstrap_server.params
        if not params.xds_host and not request.pinned and host not in self.tls.sans:
            raise Outcome(400, _not_in_sans(host, self.tls.sans))
        _check_protocol(request)
        if self._config.dp_auth and len(request.dataplane_resource or "") > _LARGE:
            await self._subject(request, request.mesh or "")
        proxy = await self._proxy(request)
        credential = await self._credential(request, proxy)
        if (reason := await self._taken(proxy.key, request.run_id or "")) is not None:
            raise Outcome(409, reason)
        ca_pem = self._ca(request)
        port = _admin_port(proxy.spec) or request.admin_port or params.admin_port
        return bootstrap(
            BootstrapValues(
                mesh=proxy.key.mesh,
                name=proxy.key.name,
                cluster=proxy.spec.identifying_service,
                metadata=_metadata(request, port),
                admin_address=params.admin_address,
                admin_port=port,
                admin_access_log=params.admin_access_log_path,
                xds_host=params.xds_host or host,
                xds_port=self._config.xds_port,
                connect_timeout_s=params.xds_connect_timeout,
                delta=(request.xds_protocol or params.xds_protocol) == "delta",
                hds=self._config.dp_server.hds.enabled,
                credential=credential,
                ca_pem=ca_pem,
                pin=self.tls.pin if request.pinned else "",
                access_log_sink=(request.dynamic_metadata or {}).get(_HELPERS) != "none",
            )
        )

    def _ca(self, request: BootstrapRequest) -> bytes:
        pem = request.ca_cert.encode() if request.ca_cert else self.tls.cert_pem
        if request.pinned:
            if request.cp_pin != self.tls.pin:
                raise Outcome(400, f"cpPin: {request.cp_pin} is not the key of this control plane, {self.tls.pin}")
            return pem
        try:
            fault = ca_fault(pem)
        except ValueError as error:
            raise Outcome(400, f"caCert: is not a PEM certificate: {error}") from error
        if fault is not None:
            raise Outcome(400, _NOT_A_CA)
        return pem

    async def _proxy(self, request: BootstrapRequest) -> _Proxy:
        kind = request.proxy_type or "dataplane"
        if kind in {"ingress", "egress"}:
            raise Outcome(422, f"proxyType: {kind} is not supported by this version. Supported: dataplane")
        if kind != "dataplane":
            raise Outcome(422, f"proxyType: {kind[:100]} is not a proxy type. Supported: dataplane")
        if not request.dataplane_resource:
            return await self._stored(request)
        key, spec = _parsed(request.dataplane_resource)
        violations = descriptor("Dataplane").validate(spec, key.mesh, key.name)
        for field, said, meant in (("mesh", request.mesh, key.mesh), ("name", request.name, key.name)):
            if said and said != meant:
                violations.append(
                    Violation(field, f'"{said[:253]}" is different than in the resource: "{meant[:253]}"')
                )
        if not violations and (refusal := await self._refusal_of_mesh(key.mesh, spec)) is not None:
            violations.append(Violation("mesh", refusal))
        if violations:
            raise Outcome(422, "; ".join(f"{field}: {message}" for field, message in violations))
        return _Proxy(key, spec)

    async def _refusal_of_mesh(self, mesh: str, spec: Dataplane) -> str | None:
        """Why the mesh cannot take the proxy in. ADS asks again: the mesh may change until then."""
        stored = await self._store.get(ResourceKey("Mesh", "", mesh))
        if stored is None:
            return _no_mesh(mesh)
        admitted = with_zone(spec, self._config.multizone.zone.name)
        return membership_refusal(mesh, decode_spec("Mesh", stored.spec).spec, admitted)

    async def _stored(self, request: BootstrapRequest) -> _Proxy:
        """The Dataplane that the store knows. 404 means "not yet", so it is only for who would get it then."""
        key = ProxyKey(request.mesh or "", request.name or "")
        if await self._store.get(ResourceKey("Mesh", "", key.mesh)) is None:
            raise Outcome(422, f"mesh: {_no_mesh(key.mesh)}")
        if self._config.dp_auth:
            subject = await self._subject(request, key.mesh)
            try:
                subject.check_node(*key)
            except TokenError as error:
                raise Outcome(422, f"authentication failed: {error}") from error
        stored = await self._store.get(ResourceKey("Dataplane", *key))
        if stored is None:
            raise Outcome(404)
        return _Proxy(key, decode_spec("Dataplane", stored.spec).spec)

    async def _credential(self, request: BootstrapRequest, proxy: _Proxy) -> str:
        """The stream credential of the proxy, after its token has been verified in full."""
        if not self._config.dp_auth:
            return ""
        subject = await self._subject(request, proxy.key.mesh)
        try:
            subject.check(*proxy.key, proxy.spec.tag_sets)
        except TokenError as error:
            raise Outcome(422, f"authentication failed: {error}") from error
        return self._authority.stream_credential(subject, proxy.key, "dataplane")

    async def _subject(self, request: BootstrapRequest, mesh: str) -> Subject:
        try:
            await self._authority.ring.catch_up()
            return await self._authority.verify_dataplane(request.dataplane_token or "", mesh)
        except TokenError as error:
            raise Outcome(422, f"authentication failed: {error}") from error


def _no_mesh(mesh: str) -> str:
    return f'mesh "{mesh[:253]}" does not exist'


def _parsed(text: str) -> _Proxy:
    try:
        document = json.loads(text)
        if not isinstance(document, dict):
            raise Outcome(422, "dataplaneResource: must be a JSON object")
        if document.get("type") != "Dataplane":
            raise Outcome(
                422, f"type: {str(document.get('type'))[:100]} is not the type of a dataplane proxy: Dataplane"
            )
        spec = decode_spec("Dataplane", document).spec
    except DecodeError as error:
        raise Outcome(422, str(error)) from error
    except (ValueError, RecursionError) as error:
        raise Outcome(422, f"dataplaneResource: is not JSON: {error}") from error
    mesh, name = document.get("mesh", ""), document.get("name", "")
    return _Proxy(ProxyKey(mesh if isinstance(mesh, str) else "", name if isinstance(name, str) else ""), spec)


def _check_protocol(request: BootstrapRequest) -> None:
    if request.xds_protocol and request.xds_protocol not in PROTOCOLS:
        raise Outcome(422, f"xdsProtocol: {request.xds_protocol[:100]} must be one of {', '.join(PROTOCOLS)}")


def _admin_port(spec: Dataplane) -> int:
    networking = spec.networking
    return networking.admin.port if networking and networking.admin else 0


def _metadata(request: BootstrapRequest, admin_port: int) -> dict[str, Any]:
    texts = {
        "dataplane.resource": request.dataplane_resource or "",
        "dataplane.admin.port": str(admin_port or ""),
        "dataplane.dns.port": str(request.dns_port or ""),
        "dataplane.dns.empty.port": str(request.empty_dns_port or ""),
        "dataplane.proxyType": request.proxy_type or "dataplane",
        "koguma.runId": request.run_id or "",
    }
    metadata: dict[str, Any] = {"version": metadata_version(request.version)}
    metadata |= {key: text for key, text in texts.items() if text}
    if request.dynamic_metadata:
        metadata["dynamicMetadata"] = dict(request.dynamic_metadata)
    if request.features:
        metadata["features"] = list(request.features)
    return metadata


def _host(header: str) -> str:
    """The host of `host:port`; IPv6 without brackets."""
    host, colon, port = header.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()):
        raise Outcome(400, "Invalid Host header")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1]
    if ":" in host:
        raise Outcome(400, "Invalid Host header")
    return host


def _not_in_sans(host: str, sans: Sequence[str]) -> str:
    shown = " ".join(f'"{san}"' for san in sans)
    return (
        f'A data plane proxy is trying to connect to the control plane using "{host}" address, but the certificate in '
        f"the control plane has the following SANs [{shown}]. Either change the --cp-address in kuma-dp to one of "
        "those or execute the following steps:\n"
        f"1) Generate a new certificate with the address you are trying to use. It is recommended to use trusted "
        "Certificate Authority, but you can also generate self-signed certificates by executing 'kumactl generate "
        f"tls-certificate --type=server --cp-hostname={host}'\n"
        "2) Set KUMA_GENERAL_TLS_CERT_FILE and KUMA_GENERAL_TLS_KEY_FILE or the equivalent in Kuma CP config file to "
        "the new certificate.\n"
        "3) Restart the control plane to read the new certificate and start kuma-dp."
    )
