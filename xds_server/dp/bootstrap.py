"""The bootstrap request (R §7.2): what is sent, over which TLS, and what each answer means.

Never here: what is done with the bootstrap.
"""

from __future__ import annotations

import http.client
import json
import random
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from xds_server.dp.errors import StartError
from xds_server.dp.trust import FirstSeen, Pinned, Trust, Unverified, check_peer, is_loopback, tls_context

KUMA_VERSION = "1.5.1"
REQUEST_TIMEOUT_S = 10.0
MAX_BODY_BYTES = 8 << 20
WRONG_PORT = "404: Page Not Found"
DP_SERVER = "--cp-address is the control plane's DP server, by default https on port 5678"
WRONG_PORT_HINT = f"this is the control plane's REST port; {DP_SERVER}"
ONLY_TLS = "Client sent an HTTP request to an HTTPS server"
DEFAULT_PORTS = {"https": 443, "http": 80}


class UnavailableError(Exception):
    """The control plane does not answer, or not yet: worth another try."""


@dataclass(frozen=True)
class Endpoint:
    """Where the DP server is."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """As the user writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def endpoint(address: str) -> Endpoint:
    """The endpoint of `--cp-address`. Plain http is for a control plane on this machine only. Raises StartError."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise StartError(f"--cp-address {address!r}: {error}") from error
    if parts.scheme not in DEFAULT_PORTS or not host or parts.path.strip("/") or parts.query:
        raise StartError(f"--cp-address {address!r} must look like https://HOST:5678")
    if parts.scheme == "http" and not is_loopback(host):
        raise StartError(f"--cp-address {address!r}: a token must not travel in plain text; use https://")
    return Endpoint(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme])


class Connection(http.client.HTTPSConnection):
    """HTTPS that shows the peer's certificate to a check before the request leaves."""

    def __init__(self, target: Endpoint, trust: Trust, say: Callable[[str], None]) -> None:
        super().__init__(target.host, target.port, timeout=REQUEST_TIMEOUT_S, context=tls_context(trust))
        self._target, self._trust, self._say = target, trust, say
        self.pin = ""

    def connect(self) -> None:
        """Connect, finish the handshake, and check the key."""
        super().connect()
        tls: ssl.SSLSocket = self.sock
        self.pin = check_peer(self._trust, tls.getpeercert(binary_form=True), str(self._target), self._say)


class Client:
    """Asks one DP server for bootstraps."""

    def __init__(self, target: Endpoint, trust: Trust, say: Callable[[str], None]) -> None:
        self.target = target
        self._trust = trust
        self._say = say
        if isinstance(trust, Unverified) and target.scheme == "https":
            say(f"WARNING: the certificate of {target} is not verified (--skip-verify)")

    def fetch(self, request: Mapping[str, object]) -> str:
        """The bootstrap as YAML; asks once. Raises UnavailableError or StartError."""
        try:
            status, text = self._post(request)
        except ssl.SSLCertVerificationError as error:
            raise StartError(
                f"the certificate of {self.target} is not accepted: {error.verify_message}; "
                "--ca-cert-file must hold the certificate it chains to, and --cp-address a name in it"
            ) from error
        except ssl.SSLError as error:
            if error.reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}:
                raise StartError(f"{self.target} does not speak TLS; {DP_SERVER}") from error
            raise UnavailableError(f"TLS with {self.target} failed: {error.reason or error}; {DP_SERVER}") from error
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"{self.target} is not reachable: {error or type(error).__name__}") from error
        return self._bootstrap(status, text)

    def _post(self, request: Mapping[str, object]) -> tuple[int, str]:
        if self.target.scheme == "https":
            connection: http.client.HTTPConnection = Connection(self.target, self._trust, self._say)
        else:
            connection = http.client.HTTPConnection(self.target.host, self.target.port, timeout=REQUEST_TIMEOUT_S)
        try:
            connection.connect()
            pin = getattr(connection, "pin", "")
            if isinstance(self._trust, FirstSeen):
                self._trust = Pinned(pin, "its first answer", "start again")
            body = json.dumps({**request, **({"cpPin": pin} if pin else {})})
            # The control plane wants the port in the Host header even where it is the scheme's own (R §7.2).
            headers = {"Host": str(self.target).partition("//")[2], "Content-Type": "application/json"}
            connection.request("POST", "/bootstrap", body, headers)
            response = connection.getresponse()
            data = response.read(MAX_BODY_BYTES + 1)
        finally:
            connection.close()
        if len(data) > MAX_BODY_BYTES:
            raise StartError(f"{self.target} answered with more than {MAX_BODY_BYTES >> 20} MiB: this is no DP server")
        return response.status, data.decode(errors="replace")

    def _bootstrap(self, status: int, text: str) -> str:
        said = text.strip()
        match status:
            case http.client.OK:
                return text
            case http.client.NOT_FOUND if not said:
                raise UnavailableError(
                    f"{self.target} does not know this Dataplane yet; give its definition by --dataplane-file, "
                    "or create it by `kumactl apply`"
                )
            case http.client.NOT_FOUND if said == WRONG_PORT:
                raise StartError(f"{self.target} has no bootstrap: {WRONG_PORT_HINT}")
            case http.client.NOT_FOUND:
                raise StartError(f"{self.target} has no bootstrap ({said[:100]}); {DP_SERVER}")
            case http.client.BAD_REQUEST if said.startswith(ONLY_TLS):
                raise StartError(f"{self.target} wants TLS; {DP_SERVER}")
            case http.client.TOO_MANY_REQUESTS:
                raise UnavailableError(f"{self.target} is busy ({said or status})")
            case _ if http.client.BAD_REQUEST <= status < http.client.INTERNAL_SERVER_ERROR:
                raise StartError(f"Invalid request: {said or http.client.responses.get(status, status)}")
            case _:
                raise UnavailableError(f"{self.target} answered {status} {said}".rstrip())


def patiently(
    ask: Callable[[], str],
    backoff_s: float,
    max_duration_s: float,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> str:
    """What `ask` returns, tried again while it raises UnavailableError, for `max_duration_s`.

    Pauses double from an eighth of `backoff_s` to four times it, each shortened by a random part up to a half, so
    that proxies which lost their control plane together do not come back together. Raises StartError at the end.
    """
    deadline_s = monotonic_s() + max_duration_s
    pause_s = backoff_s / 8
    while True:
        try:
            return ask()
        except UnavailableError as error:
            wait_s = pause_s * (1 - random.random() / 2)  # noqa: S311  # spreads load, protects nothing
            if monotonic_s() + wait_s > deadline_s:
                raise StartError(f"{error}; gave up after {max_duration_s:g} s") from error
            say(f"{error}; trying again in {wait_s:.1f} s")
            sleep(wait_s)
            pause_s = min(pause_s * 2, backoff_s * 4)
