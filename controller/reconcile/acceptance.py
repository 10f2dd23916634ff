"""Whether a server may have what it asks for. Every replica decides the same, after every restart.

Conflicts go by creation time, then by UID. A resource that was given up is held for its namespace,
so that a squatter does not get it while its owner is deleted and applied again.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from chassis.resource_url import InvalidResource, collision_key
from controller.api.auth_server import AuthServer
from controller.api.conditions import Condition, Reason
from controller.api.server_auth import ServerAuth
from controller.reconcile.tenancy import Target, permits, target

_URL_MEMBERS: Final = (
    "issuer", "authorizationEndpoint", "tokenEndpoint", "userinfoEndpoint", "revocationEndpoint",
)  # fmt: skip

Labels = Mapping[str, Mapping[str, str]]
"""The labels of every namespace, by its name."""


@dataclass(frozen=True)
class Hold:
    """Who held a resource last, while no object of theirs claims it."""

    namespace: str


def decide(
    server: ServerAuth,
    *,
    problem: Callable[[ServerAuth], Condition | None],
    claimants: Iterable[ServerAuth],
    hold: Hold | None = None,
) -> Condition:
    """The condition Accepted of one server.

    `problem` is `problem_of` for servers of one auth server. `claimants` are all of these with this
    resource in any spelling; `server` may be among them.
    """
    own_problem = problem(server)
    if own_problem is not None:
        return own_problem
    if hold is not None and hold.namespace != server.key.namespace:
        return _refused(
            Reason.CONFLICT,
            "the resource was given up by a server of another namespace and is kept for it a while",
        )
    first = min(
        (
            one
            for one in {server.uid: server, **{c.uid: c for c in claimants}}.values()
            if one.live
            and (hold is None or hold.namespace == one.key.namespace)
            and problem(one) is None
        ),
        key=lambda one: (one.created, one.uid),
    )
    if first.uid == server.uid:
        return Condition("Accepted", "True", Reason.ACCEPTED, "")
    where = (
        f"MCPServerAuth {first.key.name}"
        if first.key.namespace == server.key.namespace
        else "an MCPServerAuth of another namespace"
    )
    return _refused(Reason.CONFLICT, f"{where} had this resource first")


def problem_of(
    server: ServerAuth, auth_server: AuthServer | None, labels: Labels
) -> Condition | None:
    """What stands against this server without looking at others, or None."""
    if auth_server is None or not auth_server.live:
        return _refused(
            Reason.NO_SUCH_AUTH_SERVER,
            f"no MCPAuthServer {server.auth_server} counts; those in the controller's "
            "own namespace do",
        )
    try:
        resource = target(server.resource)
    except InvalidResource as invalid:
        return _refused(Reason.INVALID_RESOURCE, f"spec.resource {invalid}")
    if resource.origin in _origins(auth_server):
        return _refused(
            Reason.INVALID_RESOURCE,
            "spec.resource has an origin of the issuer, the internal listener or an upstream",
        )
    unknown = [one.name for one in server.upstreams if one.name not in auth_server.upstream_names]
    if unknown or not server.upstreams:
        return _refused(
            Reason.NO_SUCH_UPSTREAM, f"{auth_server.name} has no upstream {', '.join(unknown)}"
        )
    return _not_permitted(server, auth_server, labels)


def _not_permitted(server: ServerAuth, auth_server: AuthServer, labels: Labels) -> Condition | None:
    of_namespace = labels.get(server.key.namespace)
    if any(permits(one, server, of_namespace) for one in auth_server.tenants):
        return None
    return _refused(
        Reason.NOT_PERMITTED,
        f"no tenant of {auth_server.name} permits this namespace, name, resource, these upstreams "
        "and this release together",
    )


def internal_host(auth_server: AuthServer) -> str:
    """The host of the internal Service."""
    return f"{auth_server.name}-internal.{auth_server.namespace}.svc"


def _origins(auth_server: AuthServer) -> Collection[tuple[str, int]]:
    urls = [auth_server.issuer, f"https://{internal_host(auth_server)}:8443"]
    for upstream in auth_server.upstreams:
        urls += [value for name in _URL_MEMBERS if isinstance(value := upstream.get(name), str)]
    return {one.origin for url in urls if (one := _readable(url)) is not None}


def _readable(url: str) -> Target | None:
    try:
        parts = urlsplit(url)
        return target(f"{parts.scheme}://{parts.netloc}")
    except (InvalidResource, ValueError):
        return None


def _refused(reason: Reason, message: str) -> Condition:
    return Condition("Accepted", "False", reason, message)


def claim_of(server: ServerAuth) -> str:
    """What two servers have in common that claim one resource; "" where theirs is none."""
    try:
        return collision_key(server.resource)
    except InvalidResource:
        return ""
