"""A client of the REST API (R §4), on the standard library: importing it costs next to nothing."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from xds_server.dp.trust import is_loopback

DEFAULT_ADDRESS = "http://localhost:5681"
_WARNING_CODES = ("199", "299")
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})
_ONLY_TLS = "Client sent an HTTP request to an HTTPS server"
_UNKNOWN_PATH = "404: Page Not Found"


class CommandError(Exception):
    """The command failed. The text is for the user."""


class NotFoundError(CommandError):
    """The REST API says that there is no such resource."""


@dataclass(frozen=True)
class Answer:
    """Status, body (text or parsed JSON) and the texts of `Warning` headers."""

    status: int
    body: Any
    warnings: tuple[str, ...] = ()

    @property
    def created(self) -> bool:
        """Whether a PUT made something new."""
        return self.status == http.client.CREATED


@dataclass(frozen=True)
class Rest:
    """The REST API at one address, asked with one identity."""

    address: str
    token: str = ""
    timeout_s: float | None = 60.0
    ca_cert_file: str = ""
    _opener: urllib.request.OpenerDirector = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the address; loopback is never reached through a proxy of the environment."""
        try:
            parts = urlsplit(self.address)
            plausible = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            plausible = False
        if not plausible or not self.address.isprintable() or " " in self.address:
            raise CommandError(f"--address {self.address!r} must look like {DEFAULT_ADDRESS}")
        handlers: list[urllib.request.BaseHandler] = []
        host = parts.hostname or ""
        if is_loopback(host):
            handlers.append(urllib.request.ProxyHandler({}))
        if parts.scheme == "https":
            handlers.append(urllib.request.HTTPSHandler(context=self._tls()))
        elif self.token and not is_loopback(host):
            raise CommandError(
                f"--address {self.address}: a token must not travel in plain text; use https (port 5682)"
            )
        object.__setattr__(self, "_opener", urllib.request.build_opener(*handlers))

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.ca_cert_file or None)
        except (OSError, ssl.SSLError) as error:
            raise CommandError(f"--ca-cert-file {self.ca_cert_file!r} is not a PEM file: {error}") from error

    def get(self, path: str, **query: str) -> Any:
        """The parsed body of a GET. Raises CommandError, NotFoundError."""
        return self._ask("GET", path + (f"?{urlencode(query)}" if query else "")).body

    def put(self, path: str, document: Mapping[str, Any]) -> Answer:
        """Create or replace. Raises CommandError."""
        return self._ask("PUT", path, document)

    def post(self, path: str, document: Mapping[str, Any]) -> Any:
        """The body of a POST's answer. Raises CommandError."""
        return self._ask("POST", path, document).body

    def delete(self, path: str) -> None:
        """Delete. Raises CommandError, NotFoundError."""
        self._ask("DELETE", path)

    def _ask(self, method: str, path: str, document: Mapping[str, Any] | None = None) -> Answer:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        data = None
        if document is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(document).encode()
        request = urllib.request.Request(  # noqa: S310  # the scheme was checked
            self.address.rstrip("/") + path, data, headers, method=method
        )
        try:
            with self._opener.open(request, timeout=self.timeout_s) as response:
                return _answer(response)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(_answer(error), self.address) from error
        except (OSError, http.client.HTTPException) as error:
            raise CommandError(_unreachable(self.address, error)) from error


def _unreachable(address: str, error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {address} is not accepted: {reason.verify_message}; "
            "give the one it chains to by --ca-cert-file (kuma-cp.crt in the control plane's data directory)"
        )
    if isinstance(reason, ssl.SSLError) and reason.reason in _NO_TLS:
        return f"{address} does not speak TLS; its REST API is http://HOST:5681, or https://HOST:5682"
    return (
        f"the control plane at {address} is not reachable: {reason or type(error).__name__}; "
        "is `kuma-cp run` running there? --address (or KUMACTL_ADDRESS) names another"
    )


def path_of(*parts: str) -> str:
    """A URL path of these elements, each quoted."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _answer(response: Any) -> Answer:
    text = response.read().decode(errors="replace")
    try:
        body: Any = json.loads(text) if response.headers.get_content_type() == "application/json" else text
    except ValueError:
        body = text
    warnings = [value.split(" ", 2) for value in response.headers.get_all("Warning") or ()]
    told = tuple(
        parts[2].strip('"') for parts in warnings if len(parts) > len(("code", "agent")) and parts[0] in _WARNING_CODES
    )
    return Answer(response.status, body, told)


def _refusal(answer: Answer, address: str) -> CommandError:
    """Kuma's way to print an error body (R §4.2)."""
    if not isinstance(answer.body, dict) or not answer.body.get("title"):
        text = str(answer.body).strip() or http.client.responses.get(answer.status, "")
        said = f"{address} answered {answer.status}: {text.removeprefix(f'{answer.status}: ')}"
        if text.startswith(_ONLY_TLS):
            said += " Use https:// (the REST API's TLS port is 5682)"
        elif answer.status == http.client.NOT_FOUND and text != _UNKNOWN_PATH:
            said += "; this is no REST API of a control plane, which listens on 5681 (http) and 5682 (https)"
        return CommandError(said)
    lines = [f"{answer.body['title']} ({answer.body.get('details', '')})"]
    lines += [f"* {cause.get('field')}: {cause.get('message')}" for cause in answer.body.get("causes") or ()]
    kind = NotFoundError if answer.status == http.client.NOT_FOUND else CommandError
    return kind("\n".join(lines))
