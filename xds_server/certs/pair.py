"""The TLS pair of the control plane: taken from the settings, or made once in the work directory (R §6.1)."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CERT_FILE: Final = "kuma-cp.crt"
KEY_FILE: Final = "kuma-cp.key"
_VALID_FOR: Final = timedelta(days=3650)
_CLOCK_SKEW: Final = timedelta(minutes=5)
_KEY_BITS: Final = 2048


class CertificateError(Exception):
    """A pair cannot be read or used; the text names the file."""


class PemPair(NamedTuple):
    """A certificate (chain) and its key."""

    cert_pem: bytes
    key_pem: bytes


class TlsPair(NamedTuple):
    """A pair on disk, and what clients need to know of it."""

    cert_file: Path
    key_file: Path
    cert_pem: bytes
    key_pem: bytes
    pin: str
    sans: tuple[str, ...]


def control_plane_pair(work_dir: Path, cert_file: str, key_file: str, now: datetime) -> TlsPair:
    """The configured pair, else that of `work_dir`, made there when it is missing. Blocks (makes an RSA key).

    Raises CertificateError.
    """
    if cert_file:
        return load_pair(Path(cert_file).expanduser(), Path(key_file).expanduser())
    cert, key = work_dir / CERT_FILE, work_dir / KEY_FILE
    if not (_has_content(cert) and _has_content(key)):
        made = self_signed("kuma-control-plane", _own_sans(), now)
        try:
            work_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(key, made.key_pem)
            write_private(cert, made.cert_pem)
        except OSError as error:
            raise CertificateError(
                f"data directory {work_dir}: cannot write {error.filename}: {error.strerror}: check permissions and "
                "mount options of the directory, or choose another with --data-dir"
            ) from error
    return load_pair(cert, key)


def load_pair(cert_file: Path, key_file: Path) -> TlsPair:
    """Read a pair and check that key and certificate belong together. Raises CertificateError."""
    try:
        cert_pem, key_pem = cert_file.read_bytes(), key_file.read_bytes()
        certificate = x509.load_pem_x509_certificate(cert_pem)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file)
    except (OSError, ValueError) as error:
        raise CertificateError(f"{cert_file} and {key_file} are not a usable TLS pair: {error}") from error
    return TlsPair(cert_file, key_file, cert_pem, key_pem, spki_pin(certificate), _sans_of(certificate))


def spki_pin(certificate: x509.Certificate) -> str:
    """Base64 of SHA-256 of the public key: the form of Envoy's `verify_certificate_spki`."""
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()


def self_signed(common_name: str, sans: tuple[str, ...], now: datetime) -> PemPair:
    """A self-signed server pair: RSA 2048, CA:TRUE, ten years, `sans` being names and IPs. Blocks."""
    key = rsa.generate_private_key(65537, _KEY_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _VALID_FOR)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_KEY_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(san) for san in sans]), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return PemPair(certificate.public_bytes(serialization.Encoding.PEM), key_pem)


_KEY_USAGE: Final = x509.KeyUsage(
    digital_signature=True,
    key_encipherment=True,
    key_cert_sign=True,
    content_commitment=False,
    data_encipherment=False,
    key_agreement=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


class Watched:
    """Notices that the files of a pair have been replaced (XP-151)."""

    def __init__(self, pair: TlsPair) -> None:
        self.pair = pair
        self._seen = self._stamp()

    def changed(self) -> TlsPair | None:
        """The new pair when the files hold another one that is usable. Raises CertificateError when it is not.

        Each replacement is reported once, good or bad.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return None
        self._seen = stamp
        pair = load_pair(self.pair.cert_file, self.pair.key_file)
        if pair == self.pair:
            return None
        self.pair = pair
        return pair

    def _stamp(self) -> tuple[object, ...]:
        return tuple(_file_stamp(path) for path in (self.pair.cert_file, self.pair.key_file))


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def ca_fault(pem: bytes) -> str | None:
    """None when the first certificate may sign others, or says nothing about it; else `CA:FALSE`.

    Raises ValueError when it is no certificate.
    """
    certificate = x509.load_pem_x509_certificate(pem)
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return None
    return None if constraints.value.ca else "CA:FALSE"


def _file_stamp(path: Path) -> tuple[int, ...] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _sans_of(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress)))


def _general_name(san: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(san))
    except ValueError:
        return x509.DNSName(san)


def _own_sans() -> tuple[str, ...]:
    names = dict.fromkeys((socket.gethostname(), "localhost"))
    addresses = dict.fromkeys((IPv4Address("127.0.0.1"), IPv6Address("::1"), *_own_addresses()))
    return (*names, *map(str, addresses))


def _own_addresses() -> Iterator[IPv4Address | IPv6Address]:
    """Every address of this machine, as Linux lists them; elsewhere those of the host name."""
    routes, interfaces = Path("/proc/net/fib_trie"), Path("/proc/net/if_inet6")
    if routes.is_file():
        previous = ""
        for line in routes.read_text(encoding="ascii").splitlines():
            if line.strip() == "/32 host LOCAL":
                yield IPv4Address(previous.rsplit(maxsplit=1)[-1])
            previous = line
    if interfaces.is_file():
        for line in interfaces.read_text(encoding="ascii").splitlines():
            yield IPv6Address(bytes.fromhex(line.split()[0]))
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError:
        return
    for *_, address in found:
        yield ip_address(str(address[0]).partition("%")[0])
