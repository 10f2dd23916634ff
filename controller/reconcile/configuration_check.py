"""An MCPAuthServer's configuration is checked by the authserver in a Job before it is in force."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controller.api.auth_server import AuthServer
from controller.api.conditions import Condition, Reason
from controller.api.objects import Object, dicts, labels, path
from controller.reconcile import authserver_file
from controller.reconcile.authserver_objects import Objects, candidate_name, is_candidate
from controller.reconcile.surroundings import Observed

_MAX_FAULTS: Final = 4000


@dataclass(frozen=True)
class ConfigurationPlan:
    """The condition ConfigurationValid, and what to create and to apply."""

    condition: Condition
    create: tuple[Object, ...] = ()
    apply: tuple[Object, ...] = ()


def plan(
    auth_server: AuthServer,
    observed: Observed,
    objects: Objects,
    content: Mapping[str, Any],
    *,
    complete: bool,
) -> ConfigurationPlan:
    """What to do with `content`; `complete` once there are the keys and certificates it names."""
    missing = list(_missing_references(auth_server, observed))
    if missing:
        return _invalid(Reason.REFERENCE_MISSING, f"there is no {', no '.join(missing)}")
    if not complete:
        return _unknown("waits for keys and certificates")
    text = authserver_file.text(content)
    in_force = observed.config_maps.get(f"{auth_server.name}-config", {})
    if path(in_force, "data", authserver_file.CONFIG_FILE) == text:
        return _valid()
    name = candidate_name(auth_server.name, text)
    job = observed.jobs.get(name)
    if job is None:
        config, made = objects.candidate(text)
        return _unknown(_checks(name), create=(made,), apply=(config,))
    if _is(job, "Complete"):
        return _valid(apply=(objects.configuration(text),))
    if _is(job, "Failed"):
        return _invalid(Reason.INVALID, _faults(observed.pods, name))
    return _unknown(_checks(name))


def stale_candidates(
    auth_server: AuthServer, observed: Observed, content: Mapping[str, Any]
) -> Iterator[Object]:
    """What checked a configuration that is not `content`."""
    name = candidate_name(auth_server.name, authserver_file.text(content))
    for kind, by_name in (("ConfigMap", observed.config_maps), ("Job", observed.jobs)):
        for one in by_name.values():
            if is_candidate(one, auth_server.name) and one["metadata"]["name"] != name:
                yield {"kind": kind, **one}


def _missing_references(auth_server: AuthServer, observed: Observed) -> Iterator[str]:
    """Each Secret or ConfigMap, or member of it, that is named and not there."""
    secrets, config_maps = observed.secrets, observed.config_maps
    for upstream in auth_server.upstreams:
        yield from _missing("Secret", secrets, upstream.get("clientSecretRef"))
        yield from _missing("ConfigMap", config_maps, upstream.get("caBundleRef"))
    postgresql = auth_server.postgresql or {}
    yield from _missing("Secret", secrets, postgresql.get("passwordSecretRef"))
    yield from _missing("ConfigMap", config_maps, postgresql.get("caConfigMapRef"))


def _missing(kind: str, objects: Mapping[str, Object], reference: object) -> Iterator[str]:
    if not isinstance(reference, Mapping):
        return
    name, key = str(reference.get("name")), str(reference.get("key"))
    if name not in objects:
        yield f"{kind} {name}"
    elif key not in {
        **(objects[name].get("data") or {}),
        **(objects[name].get("binaryData") or {}),
    }:
        yield f"member {key} in {kind} {name}"


def _faults(pods: Iterable[Object], job: str) -> str:
    """What the authserver said, as the kubelet kept it."""
    for pod in pods:
        if labels(pod).get("batch.kubernetes.io/job-name") != job:
            continue
        for one in dicts(path(pod, "status", "containerStatuses")):
            message = path(one, "state", "terminated", "message")
            if isinstance(message, str) and message.strip():
                return _faults_in(message.strip())[:_MAX_FAULTS]
    return f"the check failed without a word; see the pods of Job {job}"


def _faults_in(message: str) -> str:
    """A fault on each line; a message that is no report, as of a crash, as it is."""
    try:
        report = json.loads(message)
        lines = [f"{one['path']}: {one['problem']}" for one in report["faults"]]
        more = int(report["more"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return message
    return "\n".join([*lines, f"and {more} more"] if more else lines)


def _is(job: Object, kind: str) -> bool:
    job_conditions = dicts(path(job, "status", "conditions"))
    return any(one.get("type") == kind and one.get("status") == "True" for one in job_conditions)


def _checks(job: str) -> str:
    return f"Job {job} has the authserver check it"


def _valid(*, apply: tuple[Object, ...] = ()) -> ConfigurationPlan:
    return ConfigurationPlan(Condition("ConfigurationValid", "True", Reason.VALID, ""), apply=apply)


def _unknown(
    message: str, *, create: tuple[Object, ...] = (), apply: tuple[Object, ...] = ()
) -> ConfigurationPlan:
    condition = Condition("ConfigurationValid", "Unknown", Reason.CHECKING, message)
    return ConfigurationPlan(condition, create, apply)


def _invalid(reason: Reason, message: str) -> ConfigurationPlan:
    return ConfigurationPlan(Condition("ConfigurationValid", "False", reason, message))
