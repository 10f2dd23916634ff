"""What a signed-in person sees of their own, and how they end it: the page /connections.

A GET changes nothing. A form of ours carries a token made from the browser session's handle.
"""

import hashlib
import hmac
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from authserver.account.connect_subject import ConnectSubjects
from authserver.audit import Audit, Outcome, Subject
from authserver.connections.connect_links import ConnectLinks
from authserver.connections.freshness import healthy
from authserver.connections.termination import SessionTermination
from authserver.oauth.errors import UserFacingError
from authserver.oauth.resources import ResourceMap
from authserver.sign_in.browser_session import BrowserLogin
from authserver.storage.account_overview import AccountOverview, UsedSession
from authserver.storage.browser_sessions import BrowserSessions, SignedIn
from authserver.storage.records import Account, Connection
from authserver.upstream.contract import Upstream, Upstreams
from authserver.values import Hidden, Value
from chassis.clock import Clock
from chassis.spiffe_id import Workload


class ConnectionsForm(StrEnum):
    """What the page's buttons say."""

    DISCONNECT = "disconnect"
    SIGN_OUT_EVERYWHERE = "sign_out_everywhere"


_NOT_FROM_HERE: Final = (
    "This request did not come from the page of this server in this browser. Open the page of your "
    "connections again, and try there."
)


class ApplicationUse(Value, frozen=True):
    """A client application at a server: since when, and when it last began or renewed its use."""

    name: str
    first_used: int
    last_used: int


class UpstreamUse(Value, frozen=True):
    """An upstream that a server may use. `connect_url` is set where the user can mend it.

    Where the upstream told them (seconds since the Unix epoch): at `ends_at` the user is asked
    again, at `unused_ends_at` only if the server does not use it before.
    """

    upstream: Upstream
    connected: bool
    works: bool
    ends_at: int | None = None
    unused_ends_at: int | None = None
    connect_url: Hidden[str] = ""


class ServerUse(Value, frozen=True):
    """One MCP server; at `ends_at` (seconds since the Unix epoch) its user is asked again.

    At `unused_ends_at` only if no application renews its use before.
    """

    resource: str
    upstreams: tuple[UpstreamUse, ...]
    applications: tuple[ApplicationUse, ...]
    ends_at: int
    unused_ends_at: int


class MyConnections(Value, frozen=True):
    """The page: who is signed in, and every server that they use; `token` goes into its forms."""

    account: Account
    servers: tuple[ServerUse, ...]
    token: Hidden[str]


class ConnectionsPage:
    def __init__(
        self,
        overview: AccountOverview,
        browser_login: BrowserLogin,
        browsers: BrowserSessions,
        subjects: ConnectSubjects,
        links: ConnectLinks,
        termination: SessionTermination,
        resources: ResourceMap,
        upstreams: Upstreams,
        audit: Audit,
        clock: Clock,
        *,
        absolute_seconds: int,
    ) -> None:
        self._overview, self._browser_login, self._browsers = overview, browser_login, browsers
        self._subjects, self._links, self._termination = subjects, links, termination
        self._resources, self._upstreams = resources, upstreams
        self._audit, self._clock = audit, clock
        self._absolute_seconds = absolute_seconds

    async def describe(self, session: str | None) -> MyConnections | None:
        """GET /connections; None where nobody is signed in at this browser."""
        visitor = await self._browser_login.user_of(session)
        if visitor is None or session is None:
            return None
        now = self._clock()
        sessions = await self._overview.sessions(visitor.user_id, now)
        connections = await self._overview.connections(visitor.user_id)
        by_resource: dict[str, list[UsedSession]] = {}
        for used in sessions:
            by_resource.setdefault(used.session.resource, []).append(used)
        servers = [
            await self._server(resource, of_resource, connections)
            for resource, of_resource in sorted(by_resource.items())
        ]
        return MyConnections(visitor.account, tuple(servers), _form_token(session))

    async def handle(
        self, fields: Mapping[str, str], session: str | None, fetch_site: str | None
    ) -> bool:
        """POST /connections: end what the form names. True where this browser was signed out too.

        Raises UserFacingError.
        """
        if fetch_site not in (None, "same-origin"):
            raise UserFacingError("connections_from_another_site", _NOT_FROM_HERE, status=403)
        visitor = await self._browser_login.user_of(session)
        if (
            visitor is None
            or session is None
            or not hmac.compare_digest(
                fields.get("token", "").encode(), _form_token(session).encode()
            )
        ):
            raise UserFacingError("connections_incomplete", _NOT_FROM_HERE, status=403)
        match fields.get("decision"):
            case ConnectionsForm.DISCONNECT if "resource" in fields:
                await self._end(visitor, fields["resource"])
                return False
            case ConnectionsForm.SIGN_OUT_EVERYWHERE:
                await self._end(visitor, None)
                await self._browsers.end_of_user(visitor.user_id)
                self._audit.sign_out(Subject(visitor.user_id), Outcome.SUCCESS, "everywhere")
                return True
        raise UserFacingError("connections_incomplete", _NOT_FROM_HERE, status=403)

    async def _end(self, visitor: SignedIn, resource: str | None) -> None:
        """End the person's sessions at one server, or all of them.

        What no other session holds is purged, and revoked at its upstream.
        """
        reason = "user_signed_out_everywhere" if resource is None else "user_disconnected"
        while sessions := await self._overview.sessions(
            visitor.user_id, self._clock(), resource=resource
        ):
            for used in sessions:
                await self._termination.end(used.session, reason)

    async def _server(
        self,
        resource: str,
        sessions: list[UsedSession],
        connections: Mapping[tuple[Workload, str], Connection],
    ) -> ServerUse:
        applications = []
        for client_id in dict.fromkeys(used.session.client_id for used in sessions):
            own = [used for used in sessions if used.session.client_id == client_id]
            applications.append(
                ApplicationUse(
                    await self._subjects.name_of(client_id),
                    min(used.session.created_at for used in own),
                    max(used.last_used for used in own),
                )
            )
        upstreams = [
            await self._upstream(name, sessions[-1], connections)
            for name in self._named(resource, sessions, connections)
        ]
        uses = tuple(use for use in upstreams if use is not None)
        last_begun = max(used.session.created_at for used in sessions)
        ends = [use.ends_at for use in uses if use.ends_at is not None]
        return ServerUse(
            resource,
            uses,
            tuple(applications),
            min([last_begun + self._absolute_seconds, *ends]),
            max(used.session.expires_at for used in sessions),
        )

    def _named(
        self,
        resource: str,
        sessions: list[UsedSession],
        connections: Mapping[tuple[Workload, str], Connection],
    ) -> list[str]:
        """The upstreams that these sessions may use, in the order of the map."""
        configured = self._resources.get(resource)
        owner = sessions[-1].session.owner
        named: set[str] = set()
        for used in sessions:
            listed = used.session.upstreams
            if listed is None:
                listed = tuple(name for of, name in connections if of == owner)
            named.update(listed)
        order = configured.upstreams if configured is not None else tuple(sorted(named))
        return [name for name in order if name in named]

    async def _upstream(
        self,
        name: str,
        used: UsedSession,
        connections: Mapping[tuple[Workload, str], Connection],
    ) -> UpstreamUse | None:
        upstream = self._upstreams.get(name)
        if upstream is None:
            return None
        # What an exchange makes is as well as what it is made of, and mended there.
        root = self._upstreams.get(upstream.made_of or name)
        connection = connections.get((used.session.owner, upstream.made_of or name))
        if connection is not None and healthy(connection, root, self._clock()):
            tokens = connection.tokens
            return UpstreamUse(
                upstream,
                connected=True,
                works=True,
                ends_at=tokens.needs_user_at,
                unused_ends_at=tokens.refresh_expires_at,
            )
        url = await self._links.url_of(used.session.tsid, upstream.made_of or name)
        return UpstreamUse(upstream, connection is not None, works=False, connect_url=url)


def _form_token(session: str) -> str:
    return hashlib.sha256(f"connections {session}".encode()).hexdigest()
