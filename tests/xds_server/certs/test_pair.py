from __future__ import annotations

import base64
import hashlib
import os
import ssl
import stat
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from xds_server.certs.pair import CertificateError, Watched, ca_fault, control_plane_pair, load_pair, self_signed

NOW = datetime.now(UTC)  # noqa: TID251  # real TLS checks real dates


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return control_plane_pair(tmp_path_factory.mktemp("cp"), "", "", NOW)


def test_the_pair_is_private_and_for_this_machine(pair):
    assert stat.S_IMODE(pair.key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(pair.cert_file.stat().st_mode) == 0o600
    assert {"localhost", "127.0.0.1", "::1", os.uname().nodename} <= set(pair.sans)
    certificate = x509.load_pem_x509_certificate(pair.cert_pem)
    assert certificate.subject.rfc4514_string() == "CN=kuma-control-plane"
    assert b"RSA PRIVATE KEY" in pair.key_pem
    assert ca_fault(pair.cert_pem) is None


def test_the_pin_is_the_hash_of_the_public_key(pair):
    der = (
        x509.load_pem_x509_certificate(pair.cert_pem)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    assert pair.pin == base64.b64encode(hashlib.sha256(der).digest()).decode()


def test_a_pair_is_made_once(pair):
    assert control_plane_pair(pair.cert_file.parent, "", "", NOW) == pair


def test_an_empty_file_is_replaced(tmp_path):
    (tmp_path / "kuma-cp.crt").touch()
    assert control_plane_pair(tmp_path, "", "", NOW).cert_pem


def test_configured_files_win(pair, tmp_path):
    assert control_plane_pair(tmp_path, str(pair.cert_file), str(pair.key_file), NOW) == pair
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_key_is_refused_with_the_file_names(pair, tmp_path):
    other = tmp_path / "other.key"
    other.write_bytes(self_signed("x", ("localhost",), NOW).key_pem)
    with pytest.raises(CertificateError, match=r"other\.key are not a usable TLS pair"):
        load_pair(pair.cert_file, other)
    with pytest.raises(CertificateError, match="nowhere"):
        load_pair(tmp_path / "nowhere", other)


def test_a_replaced_pair_is_noticed_once(tmp_path):
    pair = control_plane_pair(tmp_path, "", "", NOW)
    watched = Watched(pair)
    assert watched.changed() is None
    made = self_signed("x", ("localhost",), NOW)
    pair.cert_file.write_bytes(made.cert_pem)
    with pytest.raises(CertificateError):
        watched.changed()
    assert watched.changed() is None
    pair.key_file.write_bytes(made.key_pem)
    assert watched.changed() == load_pair(pair.cert_file, pair.key_file)
    assert watched.changed() is None


def test_the_pair_serves_tls(pair):
    context = ssl.create_default_context(cafile=pair.cert_file)
    context.load_cert_chain(pair.cert_file, pair.key_file)
