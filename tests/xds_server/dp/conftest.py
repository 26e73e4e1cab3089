"""A DP server that answers as told, over TLS with a real certificate, and an Envoy that records how it was started."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import os
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from xds_server.dp.trust import pin_of

BOOTSTRAP = """\
node:
  id: default.backend-1
admin:
  address:
    socketAddress:
      address: 127.0.0.1
      portValue: {port}
"""

FAKE_ENVOY = """\
#!/bin/sh
[ "$1" = --version ] && echo "envoy  version: abc/${{ENVOY_VERSION:-1.40.0}}/Clean/RELEASE/BoringSSL" && exit
cd "{directory}"
printf '%s\\n' "$@" > argv
cat "$2" > config
env > environment
echo $$ > pid
"""

DATAPLANE = """\
type: Dataplane
mesh: default
name: {{ name }}
networking:
  address: {{ address }}
  inbound:
  - port: 8000
    servicePort: 80
    tags:
      kuma.io/service: backend
"""


def jwt(**claims: object) -> str:
    """A token of the right shape; who verifies signatures is the control plane."""
    parts = (json.dumps({"alg": "RS256", "kid": "1"}).encode(), json.dumps(claims).encode(), b"signature")
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def certificate(directory: Path, name: str, *, hosts: tuple[str, ...] = ("127.0.0.1",)) -> Path:
    """A self-signed certificate that may sign, with its key in the same PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=36500))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host)) for host in hosts]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


def pin(path: Path) -> str:
    return pin_of(x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(serialization.Encoding.DER))


class DpServer:
    """Answers /bootstrap with `answers` in turn, the last one for ever; keeps what it was asked.

    With `admin_port` it answers as a control plane does of which that is the configured one: 0 is no admin at all.
    """

    def __init__(self, pem: Path) -> None:
        self.pem = pem
        self.answers: list[tuple[int, str]] = [(200, BOOTSTRAP.format(port=19901))]
        self.admin_port: int | None = None
        self.requests: list[dict] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                stub.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                status, body = stub.answer(stub.requests[-1])
                self.send_response(status)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda *_: None  # a client that refuses our certificate is a case here
        self.url = f"https://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def answer(self, request: dict) -> tuple[int, str]:
        if self.admin_port is None:
            return self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        resource = json.loads(request["dataplaneResource"] or "{}")
        named = resource.get("networking", {}).get("admin", {}).get("port", 0)
        port = named or request.get("adminPort", 0) or self.admin_port
        return 200, BOOTSTRAP.format(port=port) if port else BOOTSTRAP.partition("admin:")[0]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class KumaDp:
    """`kuma-dp run` in a process of its own, with the recording Envoy and a state directory of its own."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.url = url
        self.envoy = directory / "envoy"
        self.envoy.write_text(FAKE_ENVOY.format(directory=directory))
        self.envoy.chmod(0o755)
        self.dataplane = directory / "dp.yaml"
        self.dataplane.write_text(DATAPLANE)
        self.token = directory / "token"
        self.state = directory / "state"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "XDG_STATE_HOME": str(self.state),
            "KUMA_CONTROL_PLANE_RETRY_BACKOFF": "200ms",
            "KUMA_CONTROL_PLANE_RETRY_MAX_DURATION": "2s",
        }
        self.usual = (
            f"--cp-address={url}",
            f"--dataplane-file={self.dataplane}",
            "--dataplane-var",
            "name=backend-1",
            "--dataplane-var",
            "address=127.0.0.1",
            f"--dataplane-token-file={self.token}",
            f"--binary-path={self.envoy}",
        )

    @property
    def without_token(self) -> list[str]:
        return [flag for flag in self.usual if not flag.startswith("--dataplane-token")]

    def popen(self, *flags: str, usual: bool = True, **environment: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "xds_server.dp.main", "run", *(self.usual if usual else ()), *flags]
        return subprocess.Popen(
            argv,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *flags: str, usual: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        with self.popen(*flags, usual=usual, **environment) as process:
            out, err = process.communicate(timeout=30)
        self.pid = process.pid
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def recorded(self, name: str) -> str:
        return (self.directory / name).read_text()


@pytest.fixture(scope="session")
def cp_pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("cp"), "kuma-cp")


@pytest.fixture(scope="session")
def other_pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("other"), "other")


@pytest.fixture
def dp_server(cp_pem: Path):
    server = DpServer(cp_pem)
    yield server
    server.close()


def _kuma_dp(directory: Path, dp_server: DpServer) -> KumaDp:
    dp = KumaDp(directory, dp_server.url)
    dp.token.write_text(jwt(Name="backend-1", Mesh="default", CpPin=pin(dp_server.pem)))
    return dp


@pytest.fixture
def kuma_dp(tmp_path: Path, dp_server: DpServer) -> KumaDp:
    return _kuma_dp(tmp_path, dp_server)


@pytest.fixture
def two_kuma_dps(tmp_path_factory: pytest.TempPathFactory, dp_server: DpServer) -> list[KumaDp]:
    return [_kuma_dp(tmp_path_factory.mktemp(name), dp_server) for name in ("one", "two")]
