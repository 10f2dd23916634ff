"""The credential of one MCPServerAuth: of our own authority, of cert-manager, or one per pod."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, Final

from controller.api.auth_server import AuthServer
from controller.api.conditions import Condition, Reason
from controller.api.objects import Key, Object
from controller.api.server_auth import ServerAuth
from controller.issuing import leaves
from controller.issuing.authority import InvalidAuthority
from controller.issuing.rotation import AuthorityState
from controller.reconcile import cert_manager, certificates
from controller.reconcile.cert_manager import Given
from controller.reconcile.plan import (
    MANAGED_BY_LABEL,
    MANAGER,
    Event,
    Makers,
    certificate_issued,
    owner_reference,
)

KIND: Final = "MCPServerAuth"
SUFFIX: Final = "-tokenward"


class Unprepared(Enum):
    """The namespace does not let us read or write what we would keep there."""

    NAMESPACE = "namespace"


@dataclass(frozen=True)
class Known:
    """A credential that was looked at a while ago and is good until `again_at`."""

    ends: datetime
    again_at: datetime


@dataclass(frozen=True)
class Observed:
    """What is around one MCPServerAuth.

    `accepted` is the verdict of `acceptance.decide`. `programmed` says whether every pod of the
    authserver has the entry in force, None where it does not fit into the map. `credential` is the
    Secret. For source CertManager there are `given` and the authorities that are `trusted`, in PEM.
    `without_sidecar` are names of pods that opted in and were never injected. `network_policy` is
    the condition of a NetworkPolicy, None where none is wanted.
    """

    auth_server: AuthServer | None
    accepted: Condition
    programmed: bool | None
    authority: AuthorityState | None
    credential: Object | Known | Unprepared | None = None
    given: Given | None = None
    trusted: bytes = b""
    injected_pods: int = 0
    without_sidecar: tuple[str, ...] = ()
    network_policy: Condition | None = None


def secret_name(server: ServerAuth) -> str:
    """The Secret that the webhook mounts into the sidecar."""
    return f"{server.key.name}{SUFFIX}"


def credential_key(server: ServerAuth) -> Key:
    """Names that Secret, cert-manager's Certificate where that keeps it, and the NetworkPolicy."""
    return Key(server.key.namespace, secret_name(server))


@dataclass(frozen=True)
class Credential:
    """What to write for it, and the condition `CertificateReady`.

    `in_secret`: who reads Secrets of the namespace can read the key.
    """

    condition: Condition
    in_secret: bool = False
    apply: tuple[Object, ...] = ()
    certificates: tuple[Object, ...] = ()
    events: tuple[Event, ...] = ()
    ends: datetime | None = None
    again_at: datetime | None = None
    serial: str = ""


def plan(server: ServerAuth, observed: Observed, now: datetime, makers: Makers) -> Credential:
    """What to do about the credential of one server."""
    auth_server = observed.auth_server
    if auth_server is None or not observed.accepted.holds:
        return Credential(_unready(Reason.NOT_ACCEPTED, "nothing is issued before Accepted"))
    match auth_server.workload_certificates.source:
        case "PodCertificate":
            return Credential(Condition("CertificateReady", "True", Reason.ISSUED_PER_POD, ""))
        case "CertManager":
            return _by_cert_manager(server, auth_server, observed, now)
        case _:
            return _built_in(server, auth_server, observed, now, makers)


def _built_in(
    server: ServerAuth,
    auth_server: AuthServer,
    observed: Observed,
    now: datetime,
    makers: Makers,
) -> Credential:
    if isinstance(observed.credential, Unprepared):
        namespace = server.key.namespace
        text = (
            f"the controller may not keep Secrets in {namespace}; apply manifests/tenant there: "
            f"kubectl apply -n {namespace} -k manifests/tenant"
        )
        return Credential(_unready(Reason.NAMESPACE_NOT_PREPARED, text))
    if isinstance(observed.credential, Known):
        return _issued(observed.credential.ends, observed.credential.again_at)
    if observed.authority is None:
        text = f"MCPAuthServer {auth_server.name} has no authority of workloads yet"
        return Credential(_unready(Reason.AUTHORITY_NOT_READY, text))
    if observed.credential is not None and not certificates.is_ours(observed.credential):
        text = (
            f"Secret {secret_name(server)} was made by somebody else; delete it, or label it "
            f"{MANAGED_BY_LABEL}={MANAGER}"
        )
        return Credential(_unready(Reason.SECRET_NOT_OURS, text))
    if observed.credential is not None and cert_manager.keeps(observed.credential):
        name = secret_name(server)
        text = f"cert-manager keeps Secret {name}; delete Certificate {name}, then the Secret"
        return Credential(_unready(Reason.SECRET_NOT_OURS, text))
    template = _template(server, auth_server)
    try:
        leaf = certificates.plan_leaf(
            observed.credential,
            template,
            observed.authority,
            jitter_of=server.uid,
            now=now,
            makers=makers,
        )
    except InvalidAuthority as invalid:
        text = f"the authority of workloads {invalid}"
        return Credential(_unready(Reason.AUTHORITY_INVALID, text))
    return replace(
        _issued(leaf.credential.ends, leaf.again_at),
        apply=(_secret(server, leaf.data),),
        serial=leaf.credential.serial,
        events=(leaf.event,) if leaf.event is not None else (),
    )


def _issued(ends: datetime, again_at: datetime) -> Credential:
    condition = Condition("CertificateReady", "True", Reason.ISSUED, "")
    return Credential(condition, in_secret=True, ends=ends, again_at=again_at)


def _by_cert_manager(
    server: ServerAuth, auth_server: AuthServer, observed: Observed, now: datetime
) -> Credential:
    if not observed.trusted:
        text = f"MCPAuthServer {auth_server.name} names no Secret with the authorities of workloads"
        return Credential(_unready(Reason.AUTHORITY_NOT_READY, text))
    template = _template(server, auth_server)
    meta = made(server, cert_manager.API_VERSION, cert_manager.KIND)["metadata"]
    wanted = cert_manager.certificate(meta, template, auth_server.workload_certificates.issuer)
    verdict = cert_manager.judge(wanted, observed.given or Given(), template, observed.trusted, now)
    if verdict.credential is None:
        return Credential(
            _unready(verdict.reason, verdict.message),
            certificates=(wanted,),
            again_at=verdict.again_at,
        )
    serial, ends = verdict.credential.serial, verdict.credential.ends
    is_new = serial not in server.certificates
    return Credential(
        Condition("CertificateReady", "True", Reason.ISSUED, ""),
        in_secret=True,
        certificates=(wanted,),
        events=(certificate_issued(serial, ends),) if is_new else (),
        ends=ends,
        serial=serial,
    )


def _template(server: ServerAuth, auth_server: AuthServer) -> leaves.Template:
    settings = auth_server.workload_certificates
    return leaves.workload_template(
        server.workload, auth_server.trust_domain, settings.duration, settings.renew_before
    )


def _unready(reason: Reason, message: str) -> Condition:
    return Condition("CertificateReady", "False", reason, message)


def _secret(server: ServerAuth, data: Mapping[str, str]) -> Object:
    return {
        **made(server, "v1", "Secret"),
        "type": "kubernetes.io/tls",
        "data": dict(data),
    }


def made(server: ServerAuth, api_version: str, kind: str) -> dict[str, Any]:
    """An object that this server owns, without what its kind has beyond metadata."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": secret_name(server),
            "namespace": server.key.namespace,
            "labels": {
                MANAGED_BY_LABEL: MANAGER,
                "app.kubernetes.io/part-of": "tokenward",
                "tokenward.dev/server": server.key.name,
            },
            "ownerReferences": [owner_reference(server.raw, KIND)],
        },
    }
