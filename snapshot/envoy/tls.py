"""TLS of listeners."""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3.base_pb2 import DataSource, TransportSocket
from envoy.extensions.transport_sockets.tls.v3.common_pb2 import TlsCertificate
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import SdsSecretConfig
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import CommonTlsContext, DownstreamTlsContext
from google.protobuf.wrappers_pb2 import BoolValue

from snapshot.envoy.names import TLS
from snapshot.envoy.values import packed


def server_tls(cert_pem: bytes, key_pem: bytes, *, clients_validated_by: str) -> Any:
    """Present the PEM pair; accept only clients that the bootstrap's static secret `clients_validated_by` trusts."""
    context = DownstreamTlsContext(
        require_client_certificate=BoolValue(value=True),
        common_tls_context=CommonTlsContext(
            tls_certificates=[
                TlsCertificate(
                    certificate_chain=DataSource(inline_bytes=cert_pem), private_key=DataSource(inline_bytes=key_pem)
                )
            ],
            validation_context_sds_secret_config=SdsSecretConfig(name=clients_validated_by),
        ),
    )
    return TransportSocket(name=TLS, typed_config=packed(context))
