"""What cert-manager is asked for, and whether what it gave is what was asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from controller.api import conditions
from controller.api.conditions import Reason
from controller.api.objects import Object, metadata
from controller.issuing import leaves, rotation
from controller.issuing.leaves import Credential, Template

API_VERSION: Final = "cert-manager.io/v1"
KIND: Final = "Certificate"

# cert-manager names its Certificate on the Secret that it keeps.
CERTIFICATE_NAME: Final = "cert-manager.io/certificate-name"

_TRY_AGAIN: Final = timedelta(minutes=1)
_USAGES: Final = {
    ExtendedKeyUsageOID.CLIENT_AUTH: "client auth",
    ExtendedKeyUsageOID.SERVER_AUTH: "server auth",
}


class Missing(Enum):
    """Why there is no Certificate at all."""

    RIGHTS = "rights"  # of the controller in this namespace
    CERT_MANAGER = "cert-manager"  # its CustomResourceDefinition


@dataclass(frozen=True)
class Given:
    """The Certificate and its Secret as they are in the cluster."""

    certificate: Object | None = None
    secret: Object | None = None
    missing: Missing | None = None


@dataclass(frozen=True)
class Verdict:
    """A good credential, or why there is none."""

    credential: Credential | None = None
    reason: Reason = Reason.ISSUED
    message: str = ""
    again_at: datetime | None = None  # nothing tells when what is missing comes


def certificate(meta: Mapping[str, Any], template: Template, issuer: Mapping[str, Any]) -> Object:
    """The Certificate `meta` names, and the Secret of the same name, which has its labels."""
    names = {
        "uris": [n.value for n in template.names if isinstance(n, x509.UniformResourceIdentifier)],
        "dnsNames": [n.value for n in template.names if isinstance(n, x509.DNSName)],
    }
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": dict(meta),
        "spec": {
            "secretName": meta["name"],
            "secretTemplate": {"labels": dict(meta["labels"])},
            **{member: values for member, values in names.items() if values},
            "duration": leaves.go_duration(template.lifetime),
            "renewBefore": leaves.go_duration(template.renew_before),
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "usages": ["digital signature", _USAGES[template.role]],
            "issuerRef": dict(issuer),
        },
    }


def judge(
    wanted: Object, given: Given, template: Template, trusted: bytes, now: datetime
) -> Verdict:
    """What is in the cluster, held against the Certificate that is wanted.

    `trusted` are the authorities, in PEM, by which the peers of the holder know it.
    """
    name, namespace = metadata(wanted)["name"], metadata(wanted)["namespace"]
    if given.missing is Missing.RIGHTS:
        text = (
            f"the controller may not keep Certificates in {namespace}; apply "
            f"manifests/tenant/cert-manager there: kubectl apply -n {namespace} "
            "-k manifests/tenant/cert-manager"
        )
        return Verdict(None, Reason.NAMESPACE_NOT_PREPARED, text, now + _TRY_AGAIN)
    if given.missing is Missing.CERT_MANAGER:
        text = "the API server knows no Certificates; install cert-manager"
        return Verdict(None, Reason.WAITING_FOR_ISSUER, text, now + _TRY_AGAIN)
    ready = conditions.find((given.certificate or {}).get("status"), "Ready") or {}
    if ready.get("status") != "True":
        words = ": ".join(str(ready[one]) for one in ("reason", "message") if ready.get(one))
        text = f"cert-manager: {words or 'it has said nothing yet'}"
        return Verdict(None, Reason.WAITING_FOR_ISSUER, text)
    if given.secret is None:
        text = f"cert-manager has not written Secret {name} yet"
        return Verdict(None, Reason.WAITING_FOR_ISSUER, text)
    credential = leaves.read(rotation.decoded(given.secret))
    problem = leaves.problem_of(credential, template, trusted, now)
    if problem is not None:
        return Verdict(
            None, Reason.CERTIFICATE_UNFIT, f"the certificate in Secret {name} {problem}"
        )
    return Verdict(credential)


def keeps(secret: Object) -> bool:
    """Whether cert-manager writes this Secret."""
    return CERTIFICATE_NAME in (metadata(secret).get("annotations") or {})
