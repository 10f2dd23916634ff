"""MCPServerAuth: the workload's credential, and the answer in its status."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, Final

from controller.api import conditions
from controller.api.conditions import Condition, Reason
from controller.api.objects import Key, Object, dicts, format_time
from controller.api.v1alpha1 import AuthServer, ServerAuth
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
    Plan,
    certificate_issued,
    owner_reference,
)

KIND: Final = "MCPServerAuth"
SUFFIX: Final = "-tokenward"
_MAX_CERTIFICATES: Final = 8

# Every new object passes through these; an event of each would only be noise.
_WAITING: Final = frozenset(
    {
        Reason.NOT_ACCEPTED.value,
        Reason.WAITING_FOR_AUTH_SERVER.value,
        Reason.AUTHORITY_NOT_READY.value,
        Reason.WAITING_FOR_ISSUER.value,
    }
)


class Unprepared(Enum):
    """The namespace does not let us read or write its Secrets."""

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
    """

    auth_server: AuthServer | None
    accepted: Condition
    programmed: bool | None
    authority: AuthorityState | None
    credential: Object | Known | Unprepared | None = None
    given: Given | None = None
    trusted: bytes = b""
    injected_pods: int = 0


def secret_name(server: ServerAuth) -> str:
    """The Secret that the webhook mounts into the sidecar."""
    return f"{server.key.name}{SUFFIX}"


def credential_key(server: ServerAuth) -> Key:
    """Names that Secret, and cert-manager's Certificate where that keeps it."""
    return Key(server.key.namespace, secret_name(server))


def plan(server: ServerAuth, observed: Observed, now: datetime, makers: Makers) -> Plan:
    """What to do about one server, and its status afterwards."""
    credential = _credential(server, observed, now, makers)
    programmed = _programmed(server, observed)
    results = [observed.accepted, programmed, credential.condition]
    attach_only = server.release == ("Attach",) and credential.in_secret
    ready = conditions.summary(
        results, Reason.KEY_READABLE_IN_NAMESPACE if attach_only else Reason.READY
    )
    if ready.reason is Reason.KEY_READABLE_IN_NAMESPACE:
        text = (
            "who reads Secrets of this namespace can exchange tokens; source PodCertificate "
            "keeps the key out of it"
        )
        ready = replace(ready, message=text)
    status = _status(server, observed, [ready, *results], credential, now)
    events = [*credential.events, *_transitions(server, [ready, *results])]
    return Plan(
        apply=credential.apply,
        certificates=credential.certificates,
        status=status,
        events=tuple(events),
        again_at=credential.again_at,
        ends=credential.ends,
    )


@dataclass(frozen=True)
class _Credential:
    condition: Condition
    in_secret: bool = False
    apply: tuple[Object, ...] = ()
    certificates: tuple[Object, ...] = ()
    events: tuple[Event, ...] = ()
    ends: datetime | None = None
    again_at: datetime | None = None
    serial: str = ""


def _credential(
    server: ServerAuth, observed: Observed, now: datetime, makers: Makers
) -> _Credential:
    auth_server = observed.auth_server
    if auth_server is None or not observed.accepted.holds:
        return _Credential(_unready(Reason.NOT_ACCEPTED, "nothing is issued before Accepted"))
    match auth_server.workload_certificates.source:
        case "PodCertificate":
            return _Credential(Condition("CertificateReady", "True", Reason.ISSUED_PER_POD, ""))
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
) -> _Credential:
    if isinstance(observed.credential, Unprepared):
        namespace = server.key.namespace
        text = (
            f"the controller may not keep Secrets in {namespace}; apply manifests/tenant there: "
            f"kubectl apply -n {namespace} -k manifests/tenant"
        )
        return _Credential(_unready(Reason.NAMESPACE_NOT_PREPARED, text))
    if isinstance(observed.credential, Known):
        return _issued(observed.credential.ends, observed.credential.again_at)
    if observed.authority is None:
        text = f"MCPAuthServer {auth_server.name} has no authority of workloads yet"
        return _Credential(_unready(Reason.AUTHORITY_NOT_READY, text))
    if observed.credential is not None and not certificates.is_ours(observed.credential):
        text = (
            f"Secret {secret_name(server)} was made by somebody else; delete it, or label it "
            f"{MANAGED_BY_LABEL}={MANAGER}"
        )
        return _Credential(_unready(Reason.SECRET_NOT_OURS, text))
    if observed.credential is not None and cert_manager.keeps(observed.credential):
        name = secret_name(server)
        text = f"cert-manager keeps Secret {name}; delete Certificate {name}, then the Secret"
        return _Credential(_unready(Reason.SECRET_NOT_OURS, text))
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
        return _Credential(_unready(Reason.AUTHORITY_INVALID, text))
    return replace(
        _issued(leaf.credential.ends, leaf.again_at),
        apply=(_secret(server, leaf.data),),
        serial=leaf.credential.serial,
        events=(leaf.event,) if leaf.event is not None else (),
    )


def _issued(ends: datetime, again_at: datetime) -> _Credential:
    condition = Condition("CertificateReady", "True", Reason.ISSUED, "")
    return _Credential(condition, in_secret=True, ends=ends, again_at=again_at)


def _by_cert_manager(
    server: ServerAuth, auth_server: AuthServer, observed: Observed, now: datetime
) -> _Credential:
    if not observed.trusted:
        text = f"MCPAuthServer {auth_server.name} names no Secret with the authorities of workloads"
        return _Credential(_unready(Reason.AUTHORITY_NOT_READY, text))
    template = _template(server, auth_server)
    meta = _made(server, cert_manager.API_VERSION, cert_manager.KIND)["metadata"]
    wanted = cert_manager.certificate(meta, template, auth_server.workload_certificates.issuer)
    verdict = cert_manager.judge(wanted, observed.given or Given(), template, observed.trusted, now)
    if verdict.credential is None:
        return _Credential(
            _unready(verdict.reason, verdict.message),
            certificates=(wanted,),
            again_at=verdict.again_at,
        )
    serial, ends = verdict.credential.serial, verdict.credential.ends
    is_new = serial not in server.certificates
    return _Credential(
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


def _programmed(server: ServerAuth, observed: Observed) -> Condition:
    if not observed.accepted.holds:
        return Condition("Programmed", "False", Reason.NOT_ACCEPTED, "")
    if observed.programmed is None:
        return Condition("Programmed", "False", Reason.MAP_FULL, "the shard of this server is full")
    before = conditions.find(server.status, "Programmed") or {}
    stays = before.get("status") == "True" and before.get("observedGeneration") == server.generation
    if observed.programmed or stays:
        return Condition("Programmed", "True", Reason.PROGRAMMED, "")
    return Condition(
        "Programmed",
        "False",
        Reason.WAITING_FOR_AUTH_SERVER,
        "not every pod of the authserver shows the entry yet",
    )


def _unready(reason: Reason, message: str) -> Condition:
    return Condition("CertificateReady", "False", reason, message)


def _status(
    server: ServerAuth,
    observed: Observed,
    results: list[Condition],
    credential: _Credential,
    now: datetime,
) -> dict[str, Any]:
    status: dict[str, Any] = {
        "observedGeneration": server.generation,
        "phase": _phase(results, observed),
        "injectedPods": observed.injected_pods,
        "conditions": conditions.render(
            results, server.status.get("conditions"), server.generation, now
        ),
    }
    if observed.auth_server is not None:
        status["issuer"] = observed.auth_server.issuer
        if observed.accepted.holds:
            status["spiffeId"] = server.workload.spiffe_id(observed.auth_server.trust_domain)
    if credential.in_secret:
        status["secretName"] = secret_name(server)
    if certificates_now := _certificates(server, credential, now):
        status["certificates"] = certificates_now
    if credential.ends is not None:
        status["certificateExpiry"] = format_time(credential.ends)
    return status


def _certificates(
    server: ServerAuth, credential: _Credential, now: datetime
) -> list[dict[str, str]]:
    """Leaves of this object; one that has ended is dropped with the next one that is issued."""
    known = server.certificates
    if credential.serial and credential.ends is not None and credential.serial not in known:
        lasting = {serial: ends for serial, ends in known.items() if ends > now}
        known = {**lasting, credential.serial: credential.ends}
    listed = sorted(known.items(), key=lambda one: one[1])[-_MAX_CERTIFICATES:]
    return [{"serial": serial, "ends": format_time(ends)} for serial, ends in listed]


def _phase(results: list[Condition], observed: Observed) -> str:
    if results[0].holds:
        return "Ready"
    if observed.accepted.status == "False":
        waits = observed.accepted.reason is Reason.NO_SUCH_AUTH_SERVER
        return "Pending" if waits else "Failed"
    return "Progressing"


def _transitions(server: ServerAuth, results: list[Condition]) -> list[Event]:
    """An event for each condition whose status or reason is not the one that was stored."""
    before = {str(one.get("type")): one for one in dicts(server.status.get("conditions"))}
    events = []
    for one in results:
        former = before.get(one.type, {})
        if (former.get("status"), former.get("reason")) == (one.status, one.reason.value):
            continue
        waits = {one.reason.value, former.get("reason")} & _WAITING
        if waits or (one.type == "Ready" and one.reason is not Reason.KEY_READABLE_IN_NAMESPACE):
            continue
        warns = not one.holds or one.reason is Reason.KEY_READABLE_IN_NAMESPACE
        if warns or former:
            kind = "Warning" if warns else "Normal"
            events.append(Event(kind, one.reason.value, one.message or f"{one.type} holds"))
    return events


def _secret(server: ServerAuth, data: Mapping[str, str]) -> Object:
    return {
        **_made(server, "v1", "Secret"),
        "type": "kubernetes.io/tls",
        "data": dict(data),
    }


def _made(server: ServerAuth, api_version: str, kind: str) -> dict[str, Any]:
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
