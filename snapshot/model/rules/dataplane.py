"""Dataplane (R §2.3)."""

from __future__ import annotations

import re
from enum import Enum

from snapshot.model.dataplane import (
    Dataplane,
    Gateway,
    GatewayType,
    Inbound,
    Networking,
    Outbound,
    Probes,
    ServiceProbe,
)
from snapshot.model.rules.durations import positive
from snapshot.model.rules.listeners import check_admin, check_places
from snapshot.model.rules.paths import NOT_SUPPORTED, check_address, check_ip, check_port, key, not_supported, quoted
from snapshot.model.rules.tags import NO_SERVICE, TAG, TagsRule, check_tags
from snapshot.model.tags import PROTOCOL, SERVICE, Tags
from snapshot.model.validation import Violation

PROTOCOLS = ("grpc", "http", "http2", "kafka", "tcp")

_NOT_POSITIVE = "must have a positive value"
_SAME_PLACE = "serviceAddress and servicePort has to differ from address and port"
_NO_PATH = "should be a valid URL Path"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.\-]*:.")
_BAD_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2})")


class _Kind(Enum):
    """What a proxy is; the values stand in the texts."""

    STANDARD = "standard"
    DELEGATED = "delegated"
    BUILTIN = "builtin"


def validate(spec: Dataplane) -> list[Violation]:
    """All violations, in order."""
    networking = spec.networking
    later = not_supported(spec, "", [("metrics", "metrics")])
    if networking is None:
        return [Violation("networking", "must be defined"), *later]
    kind = _kind(networking)
    return [
        *check_admin(networking),
        *_check_kind(kind, networking, spec.probes),
        *_check_gateway(networking.gateway),
        *check_address("networking.address", networking.address),
        *_check_advertised(networking.advertised_address),
        *(v for index, inbound in enumerate(networking.inbound) for v in _check_inbound(index, inbound, networking)),
        *(v for index, outbound in enumerate(networking.outbound) for v in _check_outbound(index, outbound)),
        *check_places(networking),
        *not_supported(networking, "networking", [("transparent_proxying", "transparentProxying")]),
        *(_check_probes(spec.probes) if kind is not _Kind.BUILTIN else ()),
        *later,
    ]


def _kind(networking: Networking) -> _Kind:
    if networking.gateway is None:
        return _Kind.STANDARD
    return _Kind.BUILTIN if networking.gateway.type is GatewayType.BUILTIN else _Kind.DELEGATED


def _check_kind(kind: _Kind, networking: Networking, probes: Probes | None) -> list[Violation]:
    if kind is _Kind.STANDARD:
        missing = Violation("networking", "has to contain at least one inbound interface or gateway")
        return [] if networking.inbound else [missing]
    unwanted = [("inbound", bool(networking.inbound))]
    if kind is _Kind.BUILTIN:
        unwanted += [("outbound", bool(networking.outbound)), ("probes", probes is not None)]
    return [
        Violation(f"networking.{field}", f"{field} cannot be defined for {kind.value} gateways")
        for field, given in unwanted
        if given
    ]


def _check_gateway(gateway: Gateway | None) -> list[Violation]:
    if gateway is None:
        return []
    path = "networking.gateway.tags"
    violations = check_tags(path, gateway.tags, TagsRule(TAG, service=True))
    if gateway.tags.get(PROTOCOL, "tcp") != "tcp":
        violations.append(Violation(key(path, PROTOCOL), "other values than TCP are not allowed"))
    if gateway.type is GatewayType.BUILTIN:
        violations.append(Violation("networking.gateway.type", NOT_SUPPORTED))
    return violations


def _check_advertised(address: str) -> list[Violation]:
    return check_address("networking.advertisedAddress", address) if address else []


def _check_inbound(index: int, inbound: Inbound, networking: Networking) -> list[Violation]:
    path = f"networking.inbound[{index}]"
    violations = check_port(f"{path}.port", inbound.port)
    if inbound.service_port:
        violations += check_port(f"{path}.servicePort", inbound.service_port)
    violations += _check_service_address(f"{path}.serviceAddress", inbound, networking.address)
    violations += check_ip(f"{path}.address", inbound.address)
    violations += check_tags(f"{path}.tags", inbound.tags, TagsRule(TAG, whole=_check_protocol))
    violations += _check_service_probe(f"{path}.serviceProbe", inbound.service_probe)
    if SERVICE not in inbound.tags:
        violations.append(Violation(key(f"{path}.tags", SERVICE), "tag has to exist"))
    return violations


def _check_service_address(path: str, inbound: Inbound, proxy_address: str) -> list[Violation]:
    address = inbound.service_address
    violations = check_ip(path, address, "serviceAddress has to be valid IP address")
    if address and address in {proxy_address, inbound.address} and inbound.service_port in {0, inbound.port}:
        violations.append(Violation(path, _SAME_PLACE))
    return violations


def _check_protocol(path: str, tags: Tags) -> list[Violation]:
    value = tags.get(PROTOCOL)
    if value is None or value.lower() in PROTOCOLS:
        return []
    text = f'tag "{PROTOCOL}" has an invalid value {quoted(value)}. Allowed values: {", ".join(PROTOCOLS)}'
    return [Violation(key(path, PROTOCOL), text)]


def _check_service_probe(path: str, probe: ServiceProbe | None) -> list[Violation]:
    if probe is None:
        return []
    return [
        *positive(f"{path}.interval", probe.interval, _NOT_POSITIVE),
        *positive(f"{path}.timeout", probe.timeout, _NOT_POSITIVE),
        *positive(f"{path}.unhealthyThreshold", probe.unhealthy_threshold, _NOT_POSITIVE),
        *positive(f"{path}.healthyThreshold", probe.healthy_threshold, _NOT_POSITIVE),
    ]


def _check_outbound(index: int, outbound: Outbound) -> list[Violation]:
    path = f"networking.outbound[{index}]"
    violations = check_port(f"{path}.port", outbound.port) + check_ip(f"{path}.address", outbound.address)
    if SERVICE not in outbound.destination or (not outbound.tags and not outbound.service):
        violations.append(Violation(f"{path}.tags", NO_SERVICE))
    if not outbound.tags and outbound.service and TAG.pattern.fullmatch(outbound.service) is None:
        # the deprecated field becomes a tag, so it is held to the rule of tags
        violations.append(Violation(f"{path}.service", TAG.message))
    return violations + check_tags(f"{path}.tags", outbound.tags, TagsRule(TAG))


def _check_probes(probes: Probes | None) -> list[Violation]:
    if probes is None:
        return []
    violations = check_port("probes.port", probes.port)
    for index, endpoint in enumerate(probes.endpoints):
        path = f"probes.endpoints[{index}]"
        violations += check_port(f"{path}.inboundPort", endpoint.inbound_port)
        for field, value in (("inboundPath", endpoint.inbound_path), ("path", endpoint.path)):
            if not _is_request_uri(value):
                violations.append(Violation(f"{path}.{field}", _NO_PATH))
    return violations


def _is_request_uri(text: str) -> bool:
    """Whether `text` is an absolute path or an absolute URI."""
    starts_well = text.startswith("/") or _SCHEME.match(text) is not None
    return starts_well and _CONTROL.search(text) is None and _BAD_ESCAPE.search(text.partition("?")[0]) is None
