"""Hypothesis strategies of documents that a user may write: odd, but valid by the rules of their types."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from snapshot.model.codec import decode_resource
from snapshot.model.meta import Resource
from snapshot.registry import TYPES

SERVICES = ("web", "web", "web", "backend", "a:b.c_-d" + "s" * 300)
"""One of them often, so that much leads to the same place."""
ADDRESSES = ("10.0.0.1", "127.0.0.1", "::1", "0:0:0:0:0:0:0:1", "fd00::1", "0.0.0.0", "::")  # noqa: S104 - not bound
DURATIONS = ("1ns", "1us", "10ms", "15s", "16s", "1h", "2562047h47m16.854775807s")
COUNTS = (0, 1, 2, 2**32 - 1)

_service = st.sampled_from(SERVICES)
_duration = st.sampled_from(DURATIONS)
_count = st.sampled_from(COUNTS)
_protocol = st.sampled_from(("http", "HTTP", "Http2", "grpc", "tcp", "kafka"))


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def _one(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(*(st.fixed_dictionaries({name: value}) for name, value in fields.items()))


def _tags(*, star: bool = False) -> st.SearchStrategy[dict[str, str]]:
    services = (*SERVICES, "*") if star else SERVICES
    values = ("1", "2", "*") if star else ("1", "2")
    return st.fixed_dictionaries(
        {"kuma.io/service": st.sampled_from(services)}, optional={"version": st.sampled_from(values)}
    )


_inbound = st.fixed_dictionaries(
    {"port": st.sampled_from((80, 81, 9901, 49151, 65535)), "tags": _tags()},
    optional={
        "servicePort": st.sampled_from((80, 90)),
        "serviceAddress": st.sampled_from(ADDRESSES),
        "address": st.sampled_from(ADDRESSES),
        "health": _some(ready=st.booleans()),
    },
).flatmap(
    lambda one: st.one_of(st.just(one), _protocol.map(lambda p: one | {"tags": one["tags"] | {"kuma.io/protocol": p}}))
)

_outbound = st.one_of(
    st.fixed_dictionaries(
        {"port": st.integers(10000, 10003), "tags": _tags()}, optional={"address": st.sampled_from(ADDRESSES)}
    ),
    st.fixed_dictionaries({"port": st.integers(10000, 10003), "service": _service}),
)
_paths = st.sampled_from(("/", "/a", r"/a\1?b#c", "http://h/x"))
_probe = st.fixed_dictionaries({"inboundPort": st.sampled_from((80, 90, 7)), "inboundPath": _paths, "path": _paths})
_probes = st.fixed_dictionaries({"port": st.sampled_from((80, 9000, 9901)), "endpoints": st.lists(_probe, max_size=2)})


@st.composite
def _dataplane(draw: st.DrawFn) -> dict[str, Any]:
    networking: dict[str, Any] = {
        "address": draw(st.sampled_from((*ADDRESSES[:5], "name.example"))),
        "outbound": draw(st.lists(_outbound, min_size=1, max_size=3)),
    }
    if draw(st.integers(0, 4)):
        networking["inbound"] = draw(st.lists(_inbound, min_size=1, max_size=3))
    else:
        networking["gateway"] = {"tags": draw(_tags())}
    if draw(st.booleans()):
        networking["advertisedAddress"] = draw(st.sampled_from(("192.0.2.1", "fd00::9", "name.example")))
    document = {"networking": networking}
    return document | {"probes": draw(_probes)} if draw(st.booleans()) else document


_matcher = _one(
    prefix=st.sampled_from(("/", "/a", "x\n")),
    exact=st.sampled_from(("", "/a", "GET")),
    regex=st.sampled_from((".*", "/(a)|b", r"\pL")),
)
_substitution = st.fixed_dictionaries(
    {"pattern": st.just("/(a)"), "substitution": st.sampled_from((r"\1", r"\0\\", "/b"))}
)
_headers = _some(
    add=st.lists(
        st.fixed_dictionaries(
            {
                "name": st.sampled_from(("x", "X-y", "x-kuma-tags")),
                "value": st.sampled_from(("a", "100%%", "%REQ(x?y):3%")),
            },
            optional={"append": st.booleans()},
        ),
        max_size=2,
    ),
    remove=st.lists(st.fixed_dictionaries({"name": st.sampled_from(("x", "Y"))}), max_size=2),
)
_split = st.lists(st.fixed_dictionaries({"weight": _count, "destination": _tags(star=True)}), min_size=1, max_size=3)
_leading = _one(destination=_tags(star=True), split=_split)
_matched_headers = st.dictionaries(st.sampled_from(("x", ":authority", "a b")), _matcher, max_size=2)
_rule = st.builds(
    lambda match, modify, leading: {"match": match, **modify, **leading},
    _some(method=_matcher, path=_matcher, headers=_matched_headers),
    _some(modify=_some(
        path=_one(regex=_substitution, rewritePrefix=st.just("/b")),
        host=_one(fromPath=_substitution, value=st.just("b")),
        requestHeaders=_headers, responseHeaders=_headers,
    )),
    _leading,
)  # fmt: skip
_ring = st.fixed_dictionaries(
    {"hashFunction": st.sampled_from(("XX_HASH", "MURMUR_HASH_2"))},
    optional={"minRingSize": _count, "maxRingSize": _count},
)
_balancer = _one(
    roundRobin=st.just({}),
    leastRequest=_some(choiceCount=_count),
    ringHash=_ring,
    random=st.just({}),
    maglev=st.just({}),
)
_tries: dict[str, Any] = {
    "numRetries": _count,
    "perTryTimeout": _duration,
    "backOff": st.fixed_dictionaries({"baseInterval": _duration}, optional={"maxInterval": _duration}),
}
_consecutive = _some(consecutive=_count)

CONFS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "TrafficRoute": st.builds(
        lambda leading, more: leading | more, _leading, _some(http=st.lists(_rule, max_size=2), loadBalancer=_balancer)
    ),
    "Timeout": _some(
        connectTimeout=st.sampled_from(("0s", "-1s", *DURATIONS)),
        tcp=_some(idleTimeout=_duration),
        http=_some(requestTimeout=_duration, idleTimeout=_duration),
        grpc=_some(streamIdleTimeout=_duration, maxStreamDuration=_duration),
    ),
    "CircuitBreaker": _some(
        interval=_duration,
        baseEjectionTime=_duration,
        maxEjectionPercent=st.sampled_from((0, 100)),
        splitExternalAndLocalErrors=st.booleans(),
        detectors=_some(
            totalErrors=_consecutive,
            gatewayErrors=_consecutive,
            localErrors=_consecutive,
            standardDeviation=_some(
                requestVolume=_count, minimumHosts=_count, factor=st.sampled_from((-1, 0, 1.9, 1e300))
            ),
            failure=_some(requestVolume=_count, minimumHosts=_count, threshold=st.sampled_from((0, 100))),
        ),
        thresholds=_some(maxConnections=_count, maxPendingRequests=_count, maxRetries=_count, maxRequests=_count),
    ),
    "Retry": _some(
        http=_some(
            **_tries,
            retriableStatusCodes=st.lists(_count, max_size=2),
            retriableMethods=st.lists(st.sampled_from(("GET", "CONNECT")), max_size=2),
        ),
        tcp=_some(maxConnectAttempts=_count),
        grpc=_some(**_tries, retryOn=st.lists(st.sampled_from(("cancelled", "deadline_exceeded")), unique=True)),
    ),
}


@st.composite
def _policy(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    towards = st.sampled_from((*SERVICES, "*", "*", "*", "*")).map(
        lambda service: {"match": {"kuma.io/service": service}}
    )
    from_ = _tags(star=True).map(lambda tags: {"match": tags})
    return {
        "sources": draw(st.lists(from_, max_size=1)) or [{"match": {"kuma.io/service": "*"}}],
        "destinations": draw(st.lists(towards, min_size=1, max_size=2)),
        "conf": draw(CONFS[kind]),
    }


def _valid(kind: str, name: str, documents: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[Resource]:
    def resource(document: dict[str, Any]) -> Resource | None:
        key, decoded = decode_resource({"type": kind, "mesh": "default", "name": name, **document})
        return None if TYPES[kind].validate(decoded.spec, key.mesh, key.name) else Resource(key=key, spec=decoded.spec)

    return documents.map(resource).filter(bool)


def dataplane(name: str) -> st.SearchStrategy[Resource]:
    """A valid Dataplane."""
    return _valid("Dataplane", name, _dataplane())


def policies() -> st.SearchStrategy[list[Resource]]:
    """Up to two valid policies of each kind."""
    some = [st.lists(_valid(kind, name, _policy(kind)), max_size=1) for kind in CONFS for name in ("a", "b")]
    return st.tuples(*some).map(lambda lists: [one for found in lists for one in found])
