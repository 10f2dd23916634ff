"""MCPServerAuth: the answer in its status, and what its credential takes."""

from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from controller.api import conditions
from controller.api.conditions import Condition, Reason
from controller.api.objects import dicts, format_time
from controller.api.server_auth import ServerAuth
from controller.reconcile import server_credential
from controller.reconcile.plan import Event, Makers, Plan
from controller.reconcile.server_credential import Credential, Observed, secret_name

_MAX_CERTIFICATES: Final = 8
_MAX_NAMES: Final = 5

# With these Ready holds, and yet somebody should do something.
_REMARKS: Final = frozenset({Reason.KEY_READABLE_IN_NAMESPACE, Reason.PODS_WITHOUT_SIDECAR})

# Every new object passes through these; an event of each would only be noise.
_WAITING: Final = frozenset(
    {
        Reason.NOT_ACCEPTED.value,
        Reason.WAITING_FOR_AUTH_SERVER.value,
        Reason.AUTHORITY_NOT_READY.value,
        Reason.WAITING_FOR_ISSUER.value,
    }
)


def plan(server: ServerAuth, observed: Observed, now: datetime, makers: Makers) -> Plan:
    """What to do about one server, and its status afterwards."""
    credential = server_credential.plan(server, observed, now, makers)
    programmed = _programmed(server, observed)
    results = [observed.accepted, programmed, credential.condition]
    if observed.network_policy is not None:
        results.append(observed.network_policy)
    remark, text = _remark(server, observed, credential)
    ready = conditions.summary(results, remark)
    if ready.holds:
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


def _remark(server: ServerAuth, observed: Observed, credential: Credential) -> tuple[Reason, str]:
    """The reason of a Ready that holds, and what a person should know."""
    if observed.without_sidecar:
        names = ", ".join(observed.without_sidecar[:_MAX_NAMES])
        more = len(observed.without_sidecar) - _MAX_NAMES
        text = (
            f"pods opted in before the webhook was in force and have no sidecar: {names}"
            f"{f' and {more} more' if more > 0 else ''}; delete them, so that they are made anew"
        )
        return Reason.PODS_WITHOUT_SIDECAR, text
    if server.release == ("Attach",) and credential.in_secret:
        text = (
            "who reads Secrets of this namespace can exchange tokens; source PodCertificate "
            "keeps the key out of it"
        )
        return Reason.KEY_READABLE_IN_NAMESPACE, text
    return Reason.READY, ""


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


def _status(
    server: ServerAuth,
    observed: Observed,
    results: list[Condition],
    credential: Credential,
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
    server: ServerAuth, credential: Credential, now: datetime
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
        remarks = one.type == "Ready" and one.reason in _REMARKS
        waits = {one.reason.value, former.get("reason")} & _WAITING
        if not remarks and (waits or one.type == "Ready"):
            continue
        warns = not one.holds or remarks
        if warns or former:
            kind = "Warning" if warns else "Normal"
            events.append(Event(kind, one.reason.value, one.message or f"{one.type} holds"))
    return events
