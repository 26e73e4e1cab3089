"""Goldens of the pipeline: what a user wrote, and everything that one proxy then gets.

A case is a stream of YAML documents. The first says which proxy is built and what its Envoy said about itself, the
others are the user's. The output lists the resources in proto-JSON, sorted by type URL and name, and the issues.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from google.protobuf.json_format import MessageToJson

from snapshot.cache.memo import Memo
from snapshot.cache.resource import XdsResource
from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER
from snapshot.model.codec import decode_spec
from snapshot.model.meta import ProxyKey, Resource, ResourceKey
from snapshot.pipeline import Built, build, build_endpoints
from snapshot.topology.mesh_context import MeshContext, Names
from snapshot.topology.outbounds import MeshPolicies, routed_proxy
from snapshot.topology.proxy import NodeInfo, Settings

FOLDER = Path(__file__).parent.parent / "snapshot" / "pipeline"
MESH = "default"
META = ("type", "mesh", "name", "creationTime", "modificationTime")
MESSAGES = {CLUSTER: Cluster, ENDPOINT: ClusterLoadAssignment, LISTENER: Listener}


@dataclass(frozen=True)
class Case:
    """One proxy of one mesh, built."""

    name: str
    built: Built
    resources: Mapping[str, tuple[XdsResource, ...]]
    """By type URL, sorted by name, with the ClusterLoadAssignments."""

    @property
    def rendered(self) -> str:
        """The golden output."""
        document: dict[str, Any] = {
            "resources": [
                {
                    "name": resource.name,
                    "resource": {
                        "@type": resource.type_url,
                        **json.loads(
                            MessageToJson(MESSAGES[resource.type_url].FromString(resource.body), sort_keys=True)
                        ),
                    },
                }
                for type_url in sorted(self.resources)
                for resource in self.resources[type_url]
            ]
        }
        if self.built.issues:
            document["issues"] = [
                f"{issue.object.type} {issue.object.name}: {issue.reason}" for issue in self.built.issues
            ]
        return yaml.safe_dump(document, sort_keys=False, width=120)


def inputs() -> list[Path]:
    """The inputs of all cases."""
    return sorted(FOLDER.glob("*.in.yaml"))


def output_of(source: Path) -> Path:
    """Where the output of that input is kept."""
    return source.with_name(source.name.replace(".in.yaml", ".out.yaml"))


def load(source: Path) -> Case:
    """Read and build a case."""
    head, *documents = yaml.safe_load_all(source.read_text(encoding="utf-8"))
    if head.get("defaults"):
        documents = [*yaml.safe_load_all((FOLDER / "defaults.yaml").read_text(encoding="utf-8")), *documents]
    resources: dict[str, list[Resource]] = defaultdict(list)
    for document in documents:
        key = ResourceKey(document["type"], document.get("mesh", ""), document["name"])
        spec = decode_spec(key.type, {k: v for k, v in document.items() if k not in META}).spec
        resources[key.type].append(Resource(key=key, spec=spec, version=1))
    return _built(source, head, resources)


def _built(source: Path, head: dict[str, Any], resources: Mapping[str, list[Resource]]) -> Case:
    node = head.get("node", {})
    dataplanes = {resource.key.name: resource.spec for resource in resources["Dataplane"]}
    offer = MeshContext(dataplanes, Names({}, {}))
    proxy = routed_proxy(
        ProxyKey(MESH, head["proxy"]),
        dataplanes[head["proxy"]],
        offer.contributions[head["proxy"]].address or "",
        NodeInfo(
            admin_port=node.get("adminPort", 0),
            extensions=frozenset(node.get("extensions", ())),
            kuma_dp_version=node.get("kumaDpVersion", ""),
        ),
        MeshPolicies.of(resources),
    )
    pair = (FOLDER / "admin-pair.pem").read_bytes() if head.get("adminPair") else b""
    key, separator, certificate = pair.partition(b"-----BEGIN CERTIFICATE-----")
    settings = Settings(admin_cert_pem=separator + certificate, admin_key_pem=key)
    built = build(proxy, offer, settings, Memo())
    made = [build_endpoints(name, offer.endpoints(selector)) for name, selector in built.endpoints.items()]
    by_type = {**{url: named.values() for url, named in built.snapshot.resources.items()}, ENDPOINT: made}
    name = source.name.removesuffix(".in.yaml")
    return Case(name, built, {url: tuple(sorted(found, key=lambda r: r.name)) for url, found in by_type.items()})
