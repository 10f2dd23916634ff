"""Writes what the processes start from: keys, certificates, the client secret, the configuration.

Every file is for this user alone; nothing of it is an argument or a variable of a process.
"""

import base64
import secrets
from typing import Final

import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from demo.layout import CLIENT_ID, HOST, NAMESPACE, SCOPE, TRUST_DOMAIN, UPSTREAM, Layout
from demo.pki import CertificateAuthority, private_key_pem, write_credential, write_private

# What Attach may call of the upstream.
_API: Final = {"name": "accounts", "methods": ["GET"], "pathPrefixes": ["/api"], "default": True}


def write_material(layout: Layout) -> None:
    _write_secrets(layout)
    _write_certificates(layout)
    write_private(layout.config, yaml.safe_dump(_configuration(layout), sort_keys=False).encode())


def _write_secrets(layout: Layout) -> None:
    write_private(layout.client_secret, secrets.token_urlsafe(32).encode() + b"\n")
    write_private(layout.encryption_key, base64.b64encode(secrets.token_bytes(32)) + b"\n")
    write_private(layout.signing_key, private_key_pem(ec.generate_private_key(ec.SECP256R1())))


def _write_certificates(layout: Layout) -> None:
    servers = CertificateAuthority.create("Tokenward demo: servers")
    workloads = CertificateAuthority.create("Tokenward demo: workloads")
    write_private(layout.server_ca, servers.certificate_pem)
    write_private(layout.workload_ca, workloads.certificate_pem)
    write_credential(layout.server_credential, servers.issue_server(ips=(HOST,)))
    upstream = CertificateAuthority.create("Tokenward demo: upstream")
    write_private(layout.api_ca, upstream.certificate_pem)
    write_credential(layout.api_credential, upstream.issue_server())
    for server in layout.servers:
        write_credential(server.credential, workloads.issue_svid(server.spiffe_id))


def _configuration(layout: Layout) -> dict[str, object]:
    """The authserver's configuration, as an operator would write it."""
    return {
        "issuer": layout.issuer,
        "trustDomain": TRUST_DOMAIN,
        "listeners": {
            "public": {"host": HOST, "port": layout.public_port},
            "internal": {
                "host": HOST,
                "port": layout.internal_port,
                "certFile": str(layout.server_credential / "tls.crt"),
                "keyFile": str(layout.server_credential / "tls.key"),
                "clientCAFile": str(layout.workload_ca),
            },
            "ops": {"host": HOST, "port": layout.ops_port},
        },
        "storage": {"url": f"sqlite://{layout.database}"},
        "encryptionKeys": [{"id": "k1", "file": str(layout.encryption_key)}],
        "signingKeys": [{"file": str(layout.signing_key), "algorithm": "ES256"}],
        "upstreams": [
            {
                "name": UPSTREAM,
                "type": "oidc",
                "issuer": layout.upstream,
                "clientId": CLIENT_ID,
                "clientSecretFile": str(layout.client_secret),
                "scopes": ["openid", "profile", "email"],
                "caFile": str(layout.api_ca),
                "apis": [_API | {"baseUrl": layout.api}],
            }
        ],
        "resources": [
            {
                "resource": server.resource,
                "workload": {"namespace": NAMESPACE, "name": server.name},
                "upstreams": [UPSTREAM],
                "scopes": [SCOPE],
                "release": ["HandOut", "Attach"] if server.app_port is None else ["Attach"],
            }
            for server in layout.servers
        ],
        "allowedWorkloads": {
            "namespaces": [NAMESPACE],
            "names": [server.name for server in layout.servers],
        },
    }
