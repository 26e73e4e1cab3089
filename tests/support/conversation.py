"""Conversations with one stream as text: commands in, what the stream said out (tests/snapshot/stream/README.md)."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse

from snapshot.cache.resource import XdsResource
from snapshot.cache.snapshot import Changes
from snapshot.cache.type_url import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET
from snapshot.stream import (
    Acked,
    BodyCache,
    Close,
    DeltaRequest,
    Effect,
    Limits,
    Nack,
    Nacked,
    Response,
    SotwRequest,
    Stream,
    UnknownType,
    Variant,
    Withheld,
)

TYPES = {"cds": CLUSTER, "eds": ENDPOINT, "sds": SECRET, "lds": LISTENER, "rds": ROUTE}
SHORT = {type_url: short for short, type_url in TYPES.items()}
IDENTIFIER = "koguma test"
MESSAGES: dict[str, Any] = {
    CLUSTER: Cluster,
    ENDPOINT: ClusterLoadAssignment,
    SECRET: Secret,
    LISTENER: Listener,
    ROUTE: RouteConfiguration,
}


def resource(type_url: str, name: str, content: str, eds: str = "") -> XdsResource:
    """A resource whose content can be read back with `content_of`."""
    match type_url:
        case _ if type_url == CLUSTER:
            message = Cluster(name=name, alt_stat_name=content)
        case _ if type_url == ENDPOINT:
            message = ClusterLoadAssignment(cluster_name=name)
            if content:
                message.endpoints.add().locality.region = content
        case _ if type_url == SECRET:
            message = Secret(name=name)
            message.generic_secret.secret.inline_string = content
        case _ if type_url == LISTENER:
            message = Listener(name=name, stat_prefix=content)
        case _:
            message = RouteConfiguration(name=name)
            message.virtual_hosts.add().name = content
    return XdsResource.of(type_url, name, message, eds_service_name=eds)


def name_and_content(type_url: str, value: bytes) -> tuple[str, str]:
    """What a client reads in the bytes of one resource."""
    message = MESSAGES[type_url].FromString(value)
    match type_url:
        case _ if type_url == CLUSTER:
            return message.name, message.alt_stat_name
        case _ if type_url == ENDPOINT:
            return message.cluster_name, message.endpoints[0].locality.region if message.endpoints else ""
        case _ if type_url == SECRET:
            return message.name, message.generic_secret.secret.inline_string
        case _ if type_url == LISTENER:
            return message.name, message.stat_prefix
        case _:
            return message.name, message.virtual_hosts[0].name


class Node:
    """A NodeState to change at will. `hidden` names are served by name only (XP-162)."""

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, XdsResource]] = {type_url: {} for type_url in TYPES.values()}
        self.hidden: dict[str, dict[str, XdsResource]] = {type_url: {} for type_url in TYPES.values()}

    def get(self, type_url: str, name: str) -> XdsResource | None:
        return self.resources[type_url].get(name) or self.hidden[type_url].get(name)

    def names(self, type_url: str) -> Collection[str]:
        return self.resources[type_url].keys()

    def put(self, each: XdsResource) -> None:
        self.resources[each.type_url][each.name] = each


@dataclass(slots=True)
class Received:
    """One response as a client decodes it."""

    type_url: str
    nonce: str
    version: str
    resources: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Name to (content, version); the version is that of the resource in delta, "" in SotW."""
    removed: tuple[str, ...] = ()


def decode(variant: Variant, response: Response) -> Received:
    """Parse with the real protobuf classes, and hold the response to the rules that every response must keep."""
    wire = response.message()
    assert len(wire) == response.size
    if variant is Variant.SOTW:
        message = DiscoveryResponse.FromString(wire)
        received = Received(message.type_url, message.nonce, message.version_info)
        payloads = [("", "", each) for each in message.resources]
    else:
        message = DeltaDiscoveryResponse.FromString(wire)
        received = Received(message.type_url, message.nonce, message.system_version_info)
        received.removed = tuple(message.removed_resources)
        payloads = [(each.name, each.version, each.resource) for each in message.resources]
        assert len(set(received.removed)) == len(received.removed)
    assert message.control_plane.identifier == IDENTIFIER
    assert (message.type_url, message.nonce) == (response.type_url, response.nonce)
    assert message.nonce
    for label, version, payload in payloads:
        assert payload.type_url == message.type_url
        name, content = name_and_content(payload.type_url, payload.value)
        assert name not in received.resources, "a name twice in one response"
        assert not label or label == name
        received.resources[name] = (content, version)
    assert not received.resources.keys() & set(received.removed)
    assert (len(payloads), len(received.removed)) == (response.resources, response.removed)
    return received


@dataclass(slots=True)
class Subscribed:
    """What the scripted client last said of one type, so that `ack` needs no list."""

    names: tuple[str, ...] = ()
    nonce: str = ""
    version: str = ""
    unanswered: list[str] = field(default_factory=list)


class Conversation:
    """Runs commands against a stream and tells what came out of each."""

    def __init__(self) -> None:
        self.node = Node()
        self.now_s = 0.0
        self.variant = Variant.SOTW
        self.stream: Stream | None = None
        self.clients: dict[str, Subscribed] = {}
        self.versions: dict[str, str] = {}
        self.nonces = (f"n{number}" for number in itertools.count(1))
        self.bodies = BodyCache()

    def run(self, command: str) -> list[str]:
        """What the stream did because of this command."""
        verb, *words = shlex.split(command)
        lines = [*getattr(self, f"do_{verb}")(*words)]
        if self.stream is not None:
            lines += self._written()
            self.stream.check_invariants()
        return lines

    # -- commands

    def do_stream(self, variant: str, *options: str) -> Iterator[str]:
        given = dict(option.split("=", 1) for option in options if "=" in option)
        self.variant = Variant(variant)
        self.clients = {}
        sizes = {key: int(value) for key, value in given.items() if key != "only"}
        self.stream = Stream(
            self.variant,
            identifier=IDENTIFIER,
            nonces=lambda: next(self.nonces),
            bodies=self.bodies,
            only_type=TYPES[given["only"]] if "only" in given else "",
            limits=Limits(**sizes),  # type: ignore[arg-type]
        )
        if "detached" not in options:
            self.stream.attach(self.node)
        yield from ()

    def do_attach(self) -> Iterator[str]:
        self._open().attach(self.node)
        yield from ()

    def do_detach(self) -> Iterator[str]:
        self._open().detach()
        yield from ()

    def do_publish(self, *words: str) -> Iterator[str]:
        """cds a=1>ea -b eds ea=2: one change of the state."""
        names: dict[str, set[str]] = {}
        type_url = ""
        for word in words:
            if word in TYPES:
                type_url = TYPES[word]
                names.setdefault(type_url, set())
                continue
            names[type_url].add(self._change(type_url, word))
        if self.stream is not None:
            self.stream.published(Changes({each: frozenset(changed) for each, changed in names.items()}), self.now_s)
        yield from ()

    def _change(self, type_url: str, word: str) -> str:
        resources, hidden = self.node.resources[type_url], self.node.hidden[type_url]
        if word.startswith("-"):
            resources.pop(word[1:], None)
            hidden.pop(word[1:], None)
            return word[1:]
        match = re.fullmatch(r"(?P<name>.*?)(?P<hidden>!?)=(?P<content>[^>]*)(?:>(?P<eds>.*))?", word)
        assert match is not None, word
        each = resource(type_url, match["name"], match["content"], match["eds"] or "")
        (hidden if match["hidden"] else resources)[each.name] = each
        return each.name

    def do_send(self, kind: str, *words: str) -> Iterator[str]:
        """A SotW list, or delta's +name and -name; nonce=, version=, error=, irv=name:content."""
        options = {key: value for key, _, value in (w[1:].partition("=") for w in words if w.startswith("@"))}
        names = tuple(word for word in words if not word.startswith("@"))
        type_url = TYPES.get(kind, "" if kind == "none" else kind)
        client = self.clients.setdefault(type_url, Subscribed())
        error = Nack(13, options["error"]) if "error" in options else None
        nonce = client.nonce if options.get("nonce") == "last" else options.get("nonce", "")
        request: SotwRequest | DeltaRequest
        if self.variant is Variant.SOTW:
            client.names = names
            version = options.get("version", "")
            known = {symbol: real for real, symbol in self.versions.items()}
            request = SotwRequest(type_url, names, known.get(version, version), nonce, error)
        else:
            claimed = dict(self._claims(type_url, options.get("irv", "")))
            subscribe = tuple(name[1:] for name in names if name.startswith("+"))
            unsubscribe = tuple(name[1:] for name in names if name.startswith("-"))
            request = DeltaRequest(type_url, subscribe, unsubscribe, claimed, nonce, error)
        yield from self._receive(request)

    def _claims(self, type_url: str, irv: str) -> Iterator[tuple[str, str]]:
        for claim in filter(None, irv.split(",")):
            name, content = claim.split(":")
            eds = self.node.resources[type_url][name].eds_service_name if name in self.node.resources[type_url] else ""
            yield name, resource(type_url, name, content, eds).version

    def do_ack(self, *kinds: str) -> Iterator[str]:
        """Answer what is unanswered, oldest first; of all types or of these."""
        for type_url, client in self.clients.items():
            if not kinds or SHORT.get(type_url) in kinds:
                yield from self._answer(type_url, client, None)

    def do_nack(self, kind: str, text: str = "no") -> Iterator[str]:
        yield from self._answer(TYPES[kind], self.clients[TYPES[kind]], Nack(13, text))

    def _answer(self, type_url: str, client: Subscribed, error: Nack | None) -> Iterator[str]:
        nonces, client.unanswered = client.unanswered, []
        for nonce in nonces:
            if self.variant is Variant.SOTW:
                yield from self._receive(SotwRequest(type_url, client.names, client.version, nonce, error))
            else:
                yield from self._receive(DeltaRequest(type_url, nonce=nonce, error=error))

    def do_wait(self, seconds: str) -> Iterator[str]:
        """Time passes, and the shell wakes the stream when it asked to be woken."""
        until_s = self.now_s + float(seconds)
        for _ in range(100):
            wake_at_s = self._open().wake_at_s()
            if wake_at_s is None or wake_at_s > until_s:
                break
            self.now_s = wake_at_s
            yield from self._written()
        self.now_s = until_s

    def do_timer(self) -> Iterator[str]:
        wake_at_s = self._open().wake_at_s()
        yield "timer none" if wake_at_s is None else f"timer in {wake_at_s - self.now_s:g} s"

    def do_status(self, *kinds: str) -> Iterator[str]:
        for type_url, status in self._open().status().items():
            if kinds and SHORT.get(type_url) not in kinds:
                continue
            text = f' {status.nack.nonce} "{status.nack.detail}"' if status.nack else ""
            yield f"{SHORT.get(type_url, type_url)} is {status.state.value} has {_list(status.resources)}{text}"

    # -- output

    def _open(self) -> Stream:
        assert self.stream is not None, "no stream is open"
        return self.stream

    def _receive(self, request: SotwRequest | DeltaRequest) -> Iterator[str]:
        for effect in self._open().receive(request, self.now_s):
            yield self._effect(effect)

    def _effect(self, effect: Effect) -> str:
        match effect:
            case Acked(type_url, nonce, _):
                return f"acked {SHORT.get(type_url, type_url)} {nonce}"
            case Nacked(type_url, nonce, _, detail):
                return f'nacked {SHORT.get(type_url, type_url)} {nonce} "{detail}"'
            case UnknownType(type_url):
                return f"unknown type {type_url}"
            case Close(code, message):
                return f"close {code.value}: {message}"

    def _written(self) -> Iterator[str]:
        stream = self._open()
        for _ in range(1000):
            response = stream.next_response(self.now_s)
            match response:
                case None:
                    return
                case Withheld():
                    yield f"withheld {response}"
                case Response():
                    yield self._response(decode_any(self.variant, response))
        raise AssertionError("the stream never stops writing")

    def _response(self, received: Received) -> str:
        client = self.clients.setdefault(received.type_url, Subscribed())
        client.nonce, client.version = received.nonce, received.version
        client.unanswered.append(received.nonce)
        words = [SHORT.get(received.type_url, received.type_url), received.nonce]
        if self.variant is Variant.SOTW:
            words.append(self.versions.setdefault(received.version, f"v{len(self.versions) + 1}"))
        words += [f"{name}={content}" for name, (content, _) in sorted(received.resources.items())]
        words += [f"-{name}" for name in sorted(received.removed)]
        if not received.resources and not received.removed:
            words.append("(empty)")
        return " ".join(words)


def decode_any(variant: Variant, response: Response) -> Received:
    """As `decode`; types without a message class here have no resources."""
    if response.type_url in MESSAGES:
        return decode(variant, response)
    assert response.resources == 0
    message = DeltaDiscoveryResponse.FromString(response.message())
    return Received(message.type_url, message.nonce, "", removed=tuple(message.removed_resources))


def _list(names: Iterable[str]) -> str:
    return ",".join(sorted(names)) or "nothing"


def run_script(text: str) -> str:
    """The script with its output written anew: blocks of commands, `----`, what came out; comments are kept."""
    conversation = Conversation()
    out = []
    for block in text.strip().split("\n\n"):
        commands = list(itertools.takewhile(lambda line: line != "----", block.splitlines()))
        spoken = [line for line in commands if not line.startswith("#")]
        if not spoken:
            out.append("\n".join(commands))
            continue
        said = [line for command in spoken for line in conversation.run(command)]
        out.append("\n".join([*commands, "----", *(said or ["(nothing)"])]))
    return "\n\n".join(out) + "\n"
