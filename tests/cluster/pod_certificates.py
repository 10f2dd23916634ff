"""A signer for PodCertificateRequests, as small as one can be: it signs what a test tells it to."""

import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from chassis.tls import certificate_forms
from demo.pki import CertificateAuthority
from tests.cluster.cluster import Cluster, Object

_LIFETIME = timedelta(hours=2)
_BACKDATED = timedelta(minutes=2)
_REFRESH_AFTER = timedelta(hours=1)


def request_for(cluster: Cluster, pod: str) -> Object | None:
    """The pod's request that nobody has answered; None while the kubelet has made none."""
    found = json.loads(cluster.inside("get", "podcertificaterequests", "-o", "json"))["items"]
    mine = (one for one in found if one["spec"]["podName"] == pod and not one.get("status"))
    return next(mine, None)


def sign(
    cluster: Cluster, request: Object, authority: CertificateAuthority, spiffe_id: str
) -> None:
    """Answer it with a certificate whose only name is `spiffe_id`."""
    begins = datetime.now(UTC).replace(microsecond=0) - _BACKDATED
    chain = _certificate(request, authority, spiffe_id, begins).public_bytes(Encoding.PEM)
    issued = {
        "type": "Issued",
        "status": "True",
        "reason": "Tests",
        "message": "",
        "lastTransitionTime": _time(begins),
    }
    status = {
        "conditions": [issued],
        "certificateChain": chain.decode("ascii"),
        "notBefore": _time(begins),
        "beginRefreshAt": _time(begins + _REFRESH_AFTER),
        "notAfter": _time(begins + _LIFETIME),
    }
    name = request["metadata"]["name"]
    patch = json.dumps({"status": status})
    options = ("--subresource=status", "--type=merge", "-p", patch)
    cluster.inside("patch", "podcertificaterequest", name, *options)


def _certificate(
    request: Object, authority: CertificateAuthority, spiffe_id: str, begins: datetime
) -> x509.Certificate:
    asked = x509.load_der_x509_csr(b64decode(request["spec"]["stubPKCS10Request"]))
    form = certificate_forms.leaf(
        asked.public_key(),  # type: ignore[arg-type]  # kubelets make the kind that is asked for
        authority.certificate,
        [x509.UniformResourceIdentifier(spiffe_id)],
        [ExtendedKeyUsageOID.CLIENT_AUTH],
        begins,
        begins + _LIFETIME,
    )
    return form.sign(authority.key, hashes.SHA256())


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
