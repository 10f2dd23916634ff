"""Which resources a tenant permits: patterns with wildcards, matched on canonical URLs."""

from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from chassis.resource_url import InvalidResource, collision_key
from chassis.spiffe_id import Workload
from controller.api.auth_server import Tenant
from controller.api.server_auth import ServerAuth

_DEFAULT_PORT: Final = 443


class Target(NamedTuple):
    """An https URL in parts: host in lower case, port, path with its leading slash."""

    host: str
    port: int
    path: str

    @property
    def origin(self) -> tuple[str, int]:
        return self.host, self.port


def target(url: str) -> Target:
    """The URL of a server in parts, in its canonical spelling.

    Raises InvalidResource for what is no https URL, and for what somebody could take for another
    URL: dot segments, empty segments, an encoded slash, a host with empty labels.
    """
    parts = urlsplit(collision_key(url))
    if parts.scheme != "https":
        raise InvalidResource("is not an https URL")
    host = parts.hostname or ""
    if not all(host.split(".")):
        raise InvalidResource("has a host with an empty label")
    if parts.query:
        raise InvalidResource("has a query")
    segments = parts.path.split("/")[1:]
    if any(one in (".", "..") for one in segments) or not all(segments[:-1]):
        raise InvalidResource("has a dot segment or an empty segment")
    if any(bad in parts.path.upper() for bad in ("%2F", "%5C", ";")):
        raise InvalidResource("has an encoded slash or a semicolon in its path")
    return Target(host, parts.port or _DEFAULT_PORT, parts.path)


def permits(tenant: Tenant, server: ServerAuth, labels: Mapping[str, str] | None) -> bool:
    """Whether the tenant lets this server bind what it asks for.

    `labels` are those of the server's namespace; None where the namespace is not known.
    """
    return (
        is_member(tenant, server.workload.namespace, labels)
        and ("*" in tenant.servers or server.workload.name in tenant.servers)
        and {one.name for one in server.upstreams} <= set(tenant.upstreams)
        and set(server.release) <= set(tenant.release)
        and any(matches(one, server.resource, server.workload) for one in tenant.resources)
    )


def is_member(tenant: Tenant, namespace: str, labels: Mapping[str, str] | None) -> bool:
    """Whether the namespace belongs to the tenant; a tenant without a selector has nobody."""
    if tenant.match_names:
        return namespace in tenant.match_names
    if not tenant.match_labels or labels is None:
        return False
    return all(labels.get(name) == value for name, value in tenant.match_labels.items())


def matches(pattern: str, resource: str, workload: Workload) -> bool:
    """Whether the pattern covers the resource.

    `*` is one whole label of the host, or all of the path after its last slash. `{namespace}` and
    `{name}` are the workload's own. A pattern with another `*` or `{` covers nothing.
    """
    filled = pattern.replace("{namespace}", workload.namespace).replace("{name}", workload.name)
    if "{" in filled or "}" in filled:
        return False
    try:
        wanted, claimed = target(filled), target(resource)
    except InvalidResource:
        return False
    return (
        wanted.port == claimed.port
        and _host_matches(wanted.host, claimed.host)
        and _path_matches(wanted.path, claimed.path)
    )


def _host_matches(pattern: str, host: str) -> bool:
    wanted, claimed = pattern.split("."), host.split(".")
    return len(wanted) == len(claimed) and all(
        one == "*" or (one == other and "*" not in one)
        for one, other in zip(wanted, claimed, strict=True)
    )


def _path_matches(pattern: str, path: str) -> bool:
    head, star, tail = pattern.partition("*")
    if not star:
        return pattern == path
    return not tail and head.endswith("/") and path.startswith(head)
