"""The Secrets and ConfigMaps of the demo's overlay: made for each cluster, and in no file."""

import secrets
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from demo.cluster.places import NAMESPACE, SERVERS_NAMESPACE, SYSTEM_NAMESPACE, Places
from demo.pki import CertificateAuthority

Object = dict[str, Any]

ROUTER_SECRET: Final = "router-tls"
_LIFETIME: Final = timedelta(days=1)  # as long as the authority's


def namespaces() -> list[Object]:
    """The namespaces that hold material; the overlay gives them their labels."""
    names = (SYSTEM_NAMESPACE, NAMESPACE, SERVERS_NAMESPACE)
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}} for n in names]


def material(places: Places) -> Iterator[Object]:
    """A certificate for the TLS router, its authority, and the secret that the upstream gave us."""
    authority = CertificateAuthority.create("Tokenward demo")
    served = authority.issue_server(dns=tuple(places.hosts), ips=(), lifetime=_LIFETIME)
    pair = {"tls.crt": served.chain, "tls.key": served.key_pem}
    yield _secret(NAMESPACE, ROUTER_SECRET, "kubernetes.io/tls", pair)
    for namespace in (NAMESPACE, SERVERS_NAMESPACE, SYSTEM_NAMESPACE):
        yield {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "demo-authority", "namespace": namespace},
            "data": {"ca.crt": authority.certificate_pem.decode("ascii")},
        }
    secret = secrets.token_urlsafe(32).encode()
    for namespace in (NAMESPACE, SYSTEM_NAMESPACE):
        yield _secret(namespace, "acme-client", "Opaque", {"secret": secret})


def _secret(namespace: str, name: str, kind: str, data: dict[str, bytes]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": {"name": name, "namespace": namespace},
        "data": {key: b64encode(value).decode("ascii") for key, value in data.items()},
    }
