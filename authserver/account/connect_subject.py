"""What a connect link is about: its session, the upstream, and whom the connection would serve."""

from authserver.clients.directory import ClientDirectory
from authserver.connections.connect_links import ConnectLink, ConnectLinks, LinkRefused
from authserver.oauth.errors import UserFacingError
from authserver.oauth.resources import Resource
from authserver.sign_in.services import SignInServices
from authserver.storage.records import Session
from authserver.storage.sessions import Sessions
from authserver.upstream.contract import Upstream
from authserver.values import Hidden, Value

LINK_IS_OVER = (
    "This link is not complete, its time is over, or it was used already. Go back to your "
    "application and try again there. It gives you a new link."
)


class Application(Value, frozen=True):
    """A client application that can use a connection, and the server at which it does."""

    name: str
    resource: str


class ConnectSubject(Value, frozen=True):
    """A link, and what it leads to as things are now.

    `exchanged` are upstreams of the resource whose tokens are made of this one's.
    """

    text: Hidden[str]
    link: ConnectLink
    session: Session
    resource: Resource
    upstream: Upstream
    exchanged: tuple[Upstream, ...] = ()

    @property
    def identifies(self) -> bool:
        """Whether the upstream is the one that names the user."""
        return self.upstream.name == self.resource.upstreams[0]


class ConnectSubjects:
    """Looks links up. Whatever is wrong with one, its holder hears the same."""

    def __init__(
        self,
        links: ConnectLinks,
        sessions: Sessions,
        services: SignInServices,
        clients: ClientDirectory,
    ) -> None:
        self._links, self._sessions = links, sessions
        self._services, self._clients = services, clients

    async def open(self, text: str) -> ConnectSubject:
        """What a link that may be used now is about. Raises UserFacingError."""
        try:
            return await self._subject(text, await self._links.open(text))
        except LinkRefused:
            raise UserFacingError("connect_link_refused", LINK_IS_OVER) from None

    async def again(self, text: str) -> ConnectSubject:
        """The same during a step that began in time; its own time is that of the step."""
        try:
            return await self._subject(text, self._links.read(text))
        except LinkRefused:
            raise UserFacingError("connect_link_refused", LINK_IS_OVER) from None

    async def _subject(self, text: str, link: ConnectLink) -> ConnectSubject:
        session = await self._sessions.get(link.tsid)
        if session is None or not session.live(self._services.clock()):
            raise LinkRefused
        resource = self._services.resources.get(session.resource)
        upstream = self._services.upstreams.get(link.upstream)
        if (
            resource is None
            or resource.owner != session.owner
            or session.owner_uid not in resource.owner_uids
            or upstream is None
            or link.upstream not in resource.upstreams
            or link.upstream in resource.exchanged
        ):
            raise LinkRefused
        exchanged = (
            self._services.upstreams[name]
            for name in resource.upstreams
            if name in resource.exchanged
        )
        made = tuple(one for one in exchanged if one.made_of == upstream.name)
        return ConnectSubject(text, link, session, resource, upstream, made)

    async def name_of(self, client_id: str) -> str:
        """What to call a client application on a page."""
        return await self._clients.name_of(client_id, self._services.clock())

    async def applications(self, subject: ConnectSubject) -> tuple[Application, ...]:
        """Every client application that will be able to use the connection, once each.

        They are those whose authorization named the upstream, and the link's own.
        """
        now, session = self._services.clock(), subject.session
        using = dict.fromkeys([(session.client_id, session.resource)])
        for other in await self._sessions.live_of_user(session.user_id, session.owner, now):
            if other.upstreams is not None and subject.upstream.name in other.upstreams:
                using[(other.client_id, other.resource)] = None
        return tuple(
            [Application(await self.name_of(client_id), resource) for client_id, resource in using]
        )
