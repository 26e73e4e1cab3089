"""Route configurations, their routes, and retries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.config.route.v3.route_components_pb2 import (
    HeaderMatcher,
    RedirectAction,
    RetryPolicy,
    Route,
    RouteAction,
    RouteMatch,
    VirtualHost,
    WeightedCluster,
)
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from snapshot.envoy.values import duration, exactly

METHOD = ":method"


def route_configuration(name: str, virtual_host: str, routes: Iterable[Any]) -> Any:
    """One virtual host for all domains. Clusters are not checked: they arrive on their own."""
    return RouteConfiguration(
        name=name,
        validate_clusters=BoolValue(value=False),
        virtual_hosts=[VirtualHost(name=virtual_host, domains=["*"], routes=routes)],
    )


def route(match: Any, clusters: Sequence[tuple[str, int]]) -> Any:
    """Sends what `match` matches to `clusters`, each with its weight."""
    action = RouteAction()
    if len(clusters) == 1:
        action.cluster = clusters[0][0]
    else:
        action.weighted_clusters.CopyFrom(
            WeightedCluster(
                clusters=[
                    WeightedCluster.ClusterWeight(name=name, weight=UInt32Value(value=weight))
                    for name, weight in clusters
                ]
            )
        )
    return Route(match=match, route=action)


def redirect(match: Any, port: int, path: str) -> Any:
    """Answers what `match` matches with 301 to `path` on another port of the same host."""
    return Route(match=match, redirect=RedirectAction(port_redirect=port, path_redirect=path))


def prefix(path: str) -> Any:
    """Matches the paths that begin with `path`."""
    return RouteMatch(prefix=path)


def exact_path(path: str) -> Any:
    """Matches `path` alone."""
    return RouteMatch(path=path)


def header(name: str, matcher: Any) -> Any:
    """Matches requests whose header `name` satisfies the string matcher."""
    return HeaderMatcher(name=name, string_match=matcher)


def header_to_add(name: str, value: str, *, append: bool = True) -> Any:
    """Adds a header: beside one that is there, or (`append` False) in its place."""
    how = HeaderValueOption.APPEND_IF_EXISTS_OR_ADD if append else HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    return HeaderValueOption(header=HeaderValue(key=name, value=value), append_action=how)


def retry_policy(retry_on: Sequence[str], *, num_retries: int | None, per_try_timeout_ns: int | None) -> Any:
    """Retries on the named conditions; None leaves Envoy's default."""
    policy = RetryPolicy(retry_on=",".join(retry_on))
    if num_retries is not None:
        policy.num_retries.CopyFrom(UInt32Value(value=num_retries))
    if per_try_timeout_ns is not None:
        policy.per_try_timeout.CopyFrom(duration(per_try_timeout_ns))
    return policy


def method_is(name: str) -> Any:
    """Matches requests with the method `name`."""
    return header(METHOD, exactly(name))
