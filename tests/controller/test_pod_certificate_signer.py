"""The signer gives one pod's sidecar one identity, and denies everything else with a reason."""

import copy
from base64 import b64encode
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authserver.internal.svid import SvidReader
from chassis.spiffe_id import Workload
from controller.api.objects import parse_time
from controller.issuing import authority, pod_certificate_signer
from controller.issuing.authority import Authority, new_key
from controller.issuing.pod_certificate_signer import Denied, Signed
from tests.controller.samples import NOW, stamp

IMAGE = f"registry.example.com/tokenward/sidecar@sha256:{'a' * 64}"
WORKLOAD = Workload("mcp-servers", "notes")
DAY = timedelta(days=1)


def csr(key: Any = None) -> str:
    """The stub that kubelets send since 1.36: a key, and a signature by it."""
    key = key or new_key()
    made = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
    return b64encode(made.public_bytes(Encoding.DER)).decode()


def request(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "req", "namespace": "mcp-servers", "creationTimestamp": stamp(),
        },
        "spec": {
            "signerName": "tokenward.dev/workload",
            "podName": "notes-0",
            "podUID": "pod-uid",
            "nodeName": "node-1",
            "serviceAccountName": "default",
            "maxExpirationSeconds": 86400,
            "stubPKCS10Request": csr(),
            **spec,
        },
    }  # fmt: skip


def pod() -> dict[str, Any]:
    certificate = {"signerName": "tokenward.dev/workload", "keyType": "ECDSAP256"}
    return {
        "metadata": {"name": "notes-0", "namespace": "mcp-servers", "uid": "pod-uid"},
        "spec": {
            "nodeName": "node-1",
            "serviceAccountName": "default",
            "initContainers": [
                {
                    "name": "tokenward-sidecar",
                    "image": IMAGE,
                    "restartPolicy": "Always",
                    "command": ["python", "-m", "sidecar"],
                    "env": [
                        {
                            "name": "TOKENWARD_SPIFFE_ID",
                            "value": "spiffe://example.org/ns/mcp-servers/mcpserver/notes",
                        }
                    ],
                    "volumeMounts": [{"name": "tokenward-credential", "mountPath": "/x"}],
                }
            ],
            "containers": [{"name": "app", "volumeMounts": [{"name": "data"}]}],
            "volumes": [
                {
                    "name": "tokenward-credential",
                    "projected": {"sources": [{"podCertificate": certificate}]},
                },
                {"name": "data", "emptyDir": {}},
            ],
        },
        "status": {"phase": "Pending"},
    }


def workload(of: dict[str, Any] | None, asked: dict[str, Any] | None = None) -> Workload:
    return pod_certificate_signer.workload_of(
        asked or request(), of, trust_domain="example.org", images={IMAGE}
    )


def by() -> Authority:
    return authority.create(
        authority.workloads("example.org"), key=new_key(), now=NOW, lifetime=30 * DAY
    )


def signed(asked: dict[str, Any], lifetime: timedelta = DAY) -> Signed:
    return pod_certificate_signer.sign(
        asked, WORKLOAD, trust_domain="example.org", authority=by(), lifetime=lifetime, now=NOW
    )


def test_an_intact_sidecar_has_the_identity_in_its_environment() -> None:
    assert workload(pod()) == WORKLOAD


def _sidecar(made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = made["spec"]["initContainers"][0]
    return found


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda p: p["metadata"].update(uid="another"), "NoSuchPod"),
        (lambda p: p["metadata"].update(namespace="others"), "NoSuchPod"),
        (lambda p: p["metadata"].update(deletionTimestamp=stamp()), "PodEnds"),
        (lambda p: p["status"].update(phase="Succeeded"), "PodEnds"),
        (lambda p: p["spec"].update(nodeName="node-2"), "AnotherNode"),
        (lambda p: p["spec"].update(serviceAccountName="other"), "AnotherServiceAccount"),
        (lambda p: p["spec"].update(initContainers=[]), "NoSidecar"),
        (lambda p: p["spec"]["initContainers"].append(_sidecar(p)), "NoSidecar"),
        (lambda p: _sidecar(p).pop("restartPolicy"), "NoSidecar"),
        (lambda p: _sidecar(p).update(image="other@sha256:" + "b" * 64), "AnotherSidecar"),
        (lambda p: _sidecar(p).update(command=["sh"]), "AnotherSidecar"),
        (lambda p: _sidecar(p).update(args=["-c"]), "AnotherSidecar"),
        (lambda p: _sidecar(p).update(env=[]), "NoIdentity"),
        (lambda p: _sidecar(p)["env"].append(_sidecar(p)["env"][0]), "NoIdentity"),
        (lambda p: _sidecar(p)["env"][0].update(value="spiffe://example.org/ns/x"), "NoIdentity"),
        (lambda p: _sidecar(p)["env"][0].pop("value"), "NoIdentity"),
        (
            lambda p: _sidecar(p)["env"][0].update(
                value="spiffe://example.org/ns/others/mcpserver/notes"
            ),
            "NoIdentity",
        ),
        (
            lambda p: _sidecar(p)["env"][0].update(
                value="spiffe://other.org/ns/mcp-servers/mcpserver/notes"
            ),
            "NoIdentity",
        ),
        (
            lambda p: p["spec"]["volumes"].append(p["spec"]["volumes"][0] | {"name": "second"}),
            "SecondProjection",
        ),
        (
            lambda p: p["spec"]["volumes"][0]["projected"]["sources"].append(
                p["spec"]["volumes"][0]["projected"]["sources"][0]
            ),
            "SecondProjection",
        ),
        (lambda p: p["spec"].update(volumes=[]), "SecondProjection"),
        (
            lambda p: p["spec"]["containers"][0]["volumeMounts"].append(
                {"name": "tokenward-credential"}
            ),
            "SharedCredential",
        ),
        (
            lambda p: p["spec"].update(
                ephemeralContainers=[
                    {"name": "debug", "volumeMounts": [{"name": "tokenward-credential"}]}
                ]
            ),
            "SharedCredential",
        ),
    ],
)
def test_a_pod_that_is_not_as_injected_is_denied(
    spoil: Callable[[dict[str, Any]], object], reason: str
) -> None:
    made = pod()
    spoil(made)
    with pytest.raises(Denied) as denied:
        workload(copy.deepcopy(made))
    assert denied.value.reason == reason
    assert str(denied.value)


def test_a_pod_that_is_not_there_is_denied() -> None:
    with pytest.raises(Denied, match="no pod"):
        workload(None)
    with pytest.raises(Denied, match="another node"):
        workload(pod(), request(nodeName=""))


def test_annotations_and_labels_decide_nothing() -> None:
    made = pod()
    made["metadata"]["annotations"] = {"tokenward.dev/status": '{"server": "other"}'}
    asked = request(unverifiedUserAnnotations={"tokenward.dev/server": "other"})
    assert workload(made, asked) == WORKLOAD


def test_what_is_signed_is_what_the_api_server_and_the_authserver_want() -> None:
    answer = signed(request())
    status = answer.status
    leaf = answer.issued.leaf
    begins, refresh, ends = (
        parse_time(status[name]) for name in ("notBefore", "beginRefreshAt", "notAfter")
    )
    assert begins is not None
    assert refresh is not None
    assert ends is not None
    assert (begins, ends) == (leaf.not_valid_before_utc, leaf.not_valid_after_utc)
    assert abs(NOW - begins) < timedelta(minutes=5)
    assert timedelta(hours=1) <= ends - begins <= DAY
    assert begins + timedelta(minutes=10) < refresh < ends - timedelta(minutes=10)
    assert status["certificateChain"].encode() == answer.issued.chain_pem
    (condition,) = status["conditions"]
    assert (condition["type"], condition["status"]) == ("Issued", "True")
    svid = SvidReader("example.org", max_lifetime=86400, own_names=()).read(
        leaf.public_bytes(Encoding.DER)
    )
    assert svid.workload == WORKLOAD


def test_a_certificate_lives_no_longer_than_asked_and_never_under_an_hour() -> None:
    short = signed(request(maxExpirationSeconds=3600))
    leaf = short.issued.leaf
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(hours=1)
    with pytest.raises(Denied, match="less than an hour"):
        signed(request(maxExpirationSeconds=3599))


def older(key: Any, proof: bytes | None = None, **changes: Any) -> dict[str, Any]:
    """As kubelets before 1.36 ask: a key, and the pod's UID signed by it."""
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    proof = proof or key.sign(b"pod-uid", ec.ECDSA(hashes.SHA256()))
    return request(
        stubPKCS10Request=None,
        pkixPublicKey=b64encode(der).decode(),
        proofOfPossession=b64encode(proof).decode(),
        **changes,
    )


def test_requests_of_older_kubelets_are_signed_too() -> None:
    key = new_key()
    assert signed(older(key)).issued.leaf.public_key() == key.public_key()


def _tampered() -> str:
    good = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(new_key(), hashes.SHA256())
    der = bytearray(good.public_bytes(Encoding.DER))
    der[-1] ^= 1
    return b64encode(bytes(der)).decode()


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (request(stubPKCS10Request="AA=="), "NoProofOfPossession"),
        (request(stubPKCS10Request="?"), "NoProofOfPossession"),
        (request(stubPKCS10Request=None), "NoProofOfPossession"),
        (request(stubPKCS10Request=_tampered()), "NoProofOfPossession"),
        (older(new_key(), proof=b"x"), "NoProofOfPossession"),
        (older(new_key(), podUID="another"), "NoProofOfPossession"),
        (
            request(stubPKCS10Request=csr(ec.generate_private_key(ec.SECP384R1()))),
            "UnsupportedKeyType",
        ),
        (
            request(stubPKCS10Request=csr(rsa.generate_private_key(65537, 2048))),
            "UnsupportedKeyType",
        ),
    ],
)
def test_a_key_without_proof_or_of_another_kind_is_denied(
    asked: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Denied) as denied:
        signed(asked)
    assert denied.value.reason == reason


def test_only_open_requests_of_this_signer_are_answered() -> None:
    assert pod_certificate_signer.is_open(request())
    assert not pod_certificate_signer.is_open(request(signerName="example.com/other"))
    for kind in ("Issued", "Denied", "Failed"):
        answered = request() | {"status": {"conditions": [{"type": kind, "status": "True"}]}}
        assert not pod_certificate_signer.is_open(answered)
