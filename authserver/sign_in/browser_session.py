"""Who is at the browser, and which upstreams need not be visited again for a resource.

A browser session saves a login, never a consent, and it moves no token: a connection belongs to
one owner, so a server of another workload still sends its user upstream once.
"""

from collections.abc import Sequence

from authserver.connections.freshness import healthy, lacking_scopes
from authserver.handles import hash_of
from authserver.oauth.resources import Resource
from authserver.oauth.scopes import of_upstream
from authserver.storage.browser_sessions import BrowserSessions, SignedIn
from authserver.storage.connections import Connections
from authserver.storage.records import AuthorizationRequest, Connection
from authserver.upstream.contract import Upstreams
from chassis.clock import Clock


class BrowserLogin:
    def __init__(
        self,
        sessions: BrowserSessions,
        connections: Connections,
        upstreams: Upstreams,
        clock: Clock,
    ) -> None:
        self._sessions, self._connections = sessions, connections
        self._upstreams, self._clock = upstreams, clock

    async def user_of(self, handle: str | None) -> SignedIn | None:
        """The user of a browser session's handle."""
        return await self._sessions.get(hash_of(handle), self._clock()) if handle else None

    async def upstreams_to_visit(
        self,
        visitor: SignedIn | None,
        resource: Resource,
        upstream_scopes: Sequence[tuple[str, str]] = (),
    ) -> tuple[str, ...]:
        """The upstreams a visitor must be sent to before `resource` can be used.

        All of them where the first one, which names the user, would not name this visitor. None
        that the user connects when it is needed. `upstream_scopes` are asked for in this request:
        where one is lacking, its upstream is visited.
        """
        if visitor is None:
            return resource.at_sign_in
        connections = await self._connections.of_user(
            visitor.user_id, resource.owner, *resource.owner_uids
        )
        first = connections.get(resource.upstreams[0])
        if (
            first is None
            or not self._healthy(first)
            or first.upstream_issuer != visitor.upstream_issuer
            or first.upstream_subject != visitor.subject
        ):
            return resource.at_sign_in
        named = {upstream for upstream, _ in upstream_scopes}
        return tuple(
            name
            for name in resource.upstreams
            if (name in resource.at_sign_in or name in named)
            and (
                name not in connections
                or not self._healthy(connections[name])
                or lacking_scopes(connections[name], of_upstream(name, upstream_scopes))
            )
        )

    def _healthy(self, connection: Connection) -> bool:
        upstream = self._upstreams.get(connection.key.upstream)
        return healthy(connection, upstream, self._clock())


def asked_at_sign_in(resource: Resource, request: AuthorizationRequest) -> tuple[str, ...]:
    """The upstreams that a request asks a person for of whom nothing is known."""
    named = {upstream for upstream, _ in request.upstream_scopes}
    return tuple(
        name for name in resource.upstreams if name in resource.at_sign_in or name in named
    )
