"""cert-manager with a CA issuer: signs the Secret that a Certificate asks for.

Whatever a test changes of a signature is what an issuer, or who may write the Secret, could do.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from controller.api.kinds import CERTIFICATE
from controller.api.objects import Key
from controller.issuing import authority
from controller.issuing.authority import Authority, PrivateKey, new_key
from controller.issuing.rotation import encoded
from tests.fakes.kubernetes_api import FakeApi

ROLES = {
    "client auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
}


def signed(
    spec: Mapping[str, Any],
    by: Authority,
    now: datetime,
    *,
    names: list[x509.GeneralName] | None = None,
    usage: str = "",
    lifetime: timedelta = timedelta(hours=24),
    other_key: PrivateKey | None = None,
) -> dict[str, str]:
    """The data of the Secret for a Certificate's `spec`, in base64, with these changes."""
    asked: list[x509.GeneralName] = [
        *(x509.UniformResourceIdentifier(one) for one in spec.get("uris", ())),
        *(x509.DNSName(one) for one in spec.get("dnsNames", ())),
    ]
    (role,) = (ROLES[one] for one in [usage or spec["usages"][-1]])
    key = new_key()
    issued = by.issue(key.public_key(), names or asked, role, now=now, lifetime=lifetime)
    return encoded(
        {
            "tls.crt": issued.chain_pem,
            "tls.key": authority.key_pem(other_key or key),
            "ca.crt": by.certificate_pem,
        }
    )


class CertManager:
    """In an API server in memory."""

    def __init__(self, api: FakeApi, by: Authority, now: datetime) -> None:
        self._api, self.by, self._now = api, by, now

    def issue(self, key: Key, **changes: Any) -> None:
        """Sign the Secret of a Certificate, and say that it is Ready."""
        made = self._api.found(CERTIFICATE, key)
        data = signed(made["spec"], self.by, self._now, **changes)
        meta = {
            "name": made["spec"]["secretName"],
            "namespace": key.namespace,
            "labels": made["spec"]["secretTemplate"]["labels"],
            "annotations": {"cert-manager.io/certificate-name": key.name},
        }
        kind = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls"}
        self._api.put({**kind, "metadata": meta, "data": data})
        self.say(key, "True", "Ready", "Certificate is up to date and has not expired")

    def say(self, key: Key, status: str, reason: str, message: str) -> None:
        ready = {"type": "Ready", "status": status, "reason": reason, "message": message}
        self._api.set_status(CERTIFICATE, key, {"conditions": [ready]})
