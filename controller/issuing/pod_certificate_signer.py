"""The signer `tokenward.dev/workload` for PodCertificateRequests (certificates.k8s.io).

The kubelet makes a key for one pod and asks; the key never leaves the node, and nothing lies in
etcd. A request does not say which volume it is for, and labels and annotations of a running pod
can change. So the server is read from the sidecar's environment, which cannot change, and the pod
must have one projection of this signer, in a volume that only the sidecar mounts.
"""

from base64 import b64decode
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from chassis.spiffe_id import InvalidSpiffeId, Workload, parse_workload
from controller.api.objects import Object, created, dicts, format_time, metadata, path
from controller.issuing.authority import BACKDATED, Authority, Issued

SIGNER: Final = "tokenward.dev/workload"
SIDECAR: Final = "tokenward-sidecar"

# A server may be made a little later than its pod; a denial is for good.
GRACE: Final = timedelta(minutes=5)

_SHORTEST: Final = timedelta(hours=1)
_FROM_BOTH_ENDS: Final = timedelta(minutes=15)  # the API server wants ten minutes

_BROKEN: Final = (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm)


class Denied(Exception):
    """The request is refused for good: `reason` is CamelCase, the text is for a person."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Signed:
    """The status of an answered request, and what was issued to whom."""

    status: Mapping[str, Any]
    issued: Issued
    workload: Workload


def is_open(request: Object) -> bool:
    """Whether nobody has answered it, and it is for this signer."""
    conditions = dicts(path(request, "status", "conditions"))
    answered = any(one.get("type") in ("Issued", "Denied", "Failed") for one in conditions)
    return path(request, "spec", "signerName") == SIGNER and not answered


def workload_of(
    request: Object, pod: Object | None, *, trust_domain: str, images: Collection[str]
) -> Workload:
    """Whose certificate it is: the server of the pod's intact sidecar. Raises Denied.

    `pod` is as the API server has it now, None where there is none of the name. `images` are the
    sidecar's that are allowed now.
    """
    _check_pod(request, pod)
    assert pod is not None
    sidecar = _sidecar(pod, images)
    _check_volumes(pod)
    values = [one for one in dicts(sidecar.get("env")) if one.get("name") == "TOKENWARD_SPIFFE_ID"]
    if len(values) != 1 or not isinstance(values[0].get("value"), str):
        raise Denied("NoIdentity", "the sidecar has no single TOKENWARD_SPIFFE_ID")
    try:
        workload = parse_workload(values[0]["value"], trust_domain=trust_domain)
    except InvalidSpiffeId as invalid:
        raise Denied("NoIdentity", f"the sidecar's TOKENWARD_SPIFFE_ID: {invalid}") from None
    if workload.namespace != metadata(pod).get("namespace"):
        raise Denied("NoIdentity", "the sidecar's identity is of another namespace")
    return workload


def _check_pod(request: Object, pod: Object | None) -> None:
    spec = request.get("spec") or {}
    if pod is None or metadata(pod).get("uid") != spec.get("podUID"):
        raise Denied("NoSuchPod", "there is no pod of this name and UID")
    if metadata(pod).get("namespace") != metadata(request).get("namespace"):
        raise Denied("NoSuchPod", "the pod is in another namespace")
    if metadata(pod).get("deletionTimestamp"):
        raise Denied("PodEnds", "the pod is being deleted")
    if path(pod, "status", "phase") in ("Succeeded", "Failed"):
        raise Denied("PodEnds", "the pod has ended")
    if not spec.get("nodeName") or path(pod, "spec", "nodeName") != spec["nodeName"]:
        raise Denied("AnotherNode", "the pod runs on another node")
    if path(pod, "spec", "serviceAccountName") != spec.get("serviceAccountName"):
        raise Denied("AnotherServiceAccount", "the pod has another ServiceAccount")


def _sidecar(pod: Object, images: Collection[str]) -> Mapping[str, Any]:
    sidecars = [
        one for one in dicts(path(pod, "spec", "initContainers")) if one.get("name") == SIDECAR
    ]
    if len(sidecars) != 1 or sidecars[0].get("restartPolicy") != "Always":
        raise Denied("NoSidecar", "the pod has no injected sidecar; is it annotated?")
    if sidecars[0].get("image") not in images:
        raise Denied("AnotherSidecar", "the sidecar's image is not one that is allowed now")
    if sidecars[0].get("command") != ["python", "-m", "sidecar"] or sidecars[0].get("args"):
        raise Denied("AnotherSidecar", "what the sidecar runs was changed")
    return sidecars[0]


def _check_volumes(pod: Object) -> None:
    """Exactly one projection of this signer, and only the sidecar mounts its volume."""
    projections = [
        volume.get("name")
        for volume in dicts(path(pod, "spec", "volumes"))
        for source in dicts(path(volume, "projected", "sources"))
        if path(source, "podCertificate", "signerName") == SIGNER
    ]
    if len(projections) != 1:
        raise Denied("SecondProjection", "the pod asks this signer for more than one certificate")
    for container in _containers(pod):
        mounts = (one.get("name") for one in dicts(container.get("volumeMounts")))
        if container.get("name") != SIDECAR and projections[0] in mounts:
            raise Denied("SharedCredential", "a container beside the sidecar mounts the credential")


def _containers(pod: Object) -> Iterator[Mapping[str, Any]]:
    for member in ("initContainers", "containers", "ephemeralContainers"):
        yield from dicts(path(pod, "spec", member))


def sign(
    request: Object,
    workload: Workload,
    *,
    trust_domain: str,
    authority: Authority,
    lifetime: timedelta,
    now: datetime,
) -> Signed:
    """Issue a certificate with exactly one name. Raises Denied and InvalidAuthority."""
    key = _public_key(request)
    most = path(request, "spec", "maxExpirationSeconds")
    if isinstance(most, int):
        lifetime = min(lifetime, timedelta(seconds=most))
    begins = (now - BACKDATED).replace(microsecond=0)
    ends = min(begins + lifetime, authority.certificate.not_valid_after_utc)
    if ends - begins < _SHORTEST:
        raise Denied("TooShort", "a certificate would live for less than an hour")
    name = x509.UniformResourceIdentifier(workload.spiffe_id(trust_domain))
    issued = authority.issue(
        key,
        [name],
        ExtendedKeyUsageOID.CLIENT_AUTH,
        now=now,
        lifetime=ends - begins,
        not_before=begins,
    )
    refresh = min(begins + (ends - begins) * 2 / 3, ends - _FROM_BOTH_ENDS)
    condition = _condition("Issued", "Issued", f"for {name.value}", now)
    return Signed(
        {
            "conditions": [condition],
            "certificateChain": issued.chain_pem.decode("ascii"),
            "notBefore": format_time(issued.leaf.not_valid_before_utc),
            "beginRefreshAt": format_time(refresh),
            "notAfter": format_time(issued.leaf.not_valid_after_utc),
        },
        issued,
        workload,
    )


def denial(denied: Denied, now: datetime) -> Mapping[str, Any]:
    """The status of a request that is refused."""
    return {"conditions": [_condition("Denied", denied.reason, str(denied), now)]}


def is_old(request: Object, now: datetime) -> bool:
    """Whether the request has waited long enough for what may still come."""
    return now >= created(request) + GRACE


def _public_key(request: Object) -> ec.EllipticCurvePublicKey:
    """The key whose possession is proved; the API server has checked that too. Raises Denied."""
    spec = request.get("spec") or {}
    try:
        if spec.get("stubPKCS10Request"):
            csr = x509.load_der_x509_csr(b64decode(spec["stubPKCS10Request"], validate=True))
            if not csr.is_signature_valid:
                raise InvalidSignature
            key = csr.public_key()
        else:  # kubelets before 1.36
            key = load_der_public_key(  # type: ignore[assignment]
                b64decode(spec["pkixPublicKey"], validate=True)
            )
            if isinstance(key, ec.EllipticCurvePublicKey):
                proof = b64decode(spec["proofOfPossession"], validate=True)
                key.verify(proof, str(spec["podUID"]).encode(), ec.ECDSA(hashes.SHA256()))
    except (*_BROKEN, KeyError):
        raise Denied("NoProofOfPossession", "the request proves no possession of a key") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Denied("UnsupportedKeyType", "the key must be ECDSAP256")
    return key


def _condition(kind: str, reason: str, message: str, now: datetime) -> dict[str, str]:
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": format_time(now),
    }
