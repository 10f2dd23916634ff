"""Which configured upstream a connection belongs to: the one whose registration it came from.

A refresh token is shared only between the client and the server that issued it (RFC 6749 section
10.4). Where the configuration now says another issuer, token endpoint or client id, or does not
name the upstream at all, the connection is neither released, nor presented, nor revoked. It counts
again when the old values come back, until it is purged.
"""

from typing import Final

from authserver.oauth.errors import InvalidGrant, TemporarilyUnavailable
from authserver.storage.absent_registrations import AbsentRegistrations, Registered
from authserver.storage.records import ClientRegistration, Connection
from authserver.upstream.contract import Upstream, Upstreams
from chassis.clock import Clock

# For so long an exchange is answered 503; then the user may sign in under the new registration.
EXCHANGE_GRACE_SECONDS: Final = 600
# For so long a client's refresh is answered 503. A slip that is put right in this time costs
# nobody a sign-in.
REFRESH_GRACE_SECONDS: Final = 3600
_RETRY_SECONDS: Final = 30


class RegistrationBinding:
    """All replicas and restarts share the moment from which both times are counted."""

    def __init__(self, upstreams: Upstreams, absent: AbsentRegistrations, clock: Clock) -> None:
        self._upstreams, self._absent, self._clock = upstreams, absent, clock

    def upstream_of(self, connection: Connection) -> Upstream | None:
        """The upstream, under its registration of now or a former one, that gave the tokens."""
        upstream = self._upstreams.get(connection.key.upstream)
        if upstream is None or belongs_to(connection, upstream):
            return upstream
        now = self._clock()
        return next(
            (
                former.upstream
                for former in upstream.former
                if now < former.until and belongs_to(connection, former.upstream)
            ),
            None,
        )

    async def check(self, connection: Connection, grace: int = EXCHANGE_GRACE_SECONDS) -> Upstream:
        """The upstream that a connection may be used with.

        Raises TemporarilyUnavailable in the first `grace` seconds after the configuration ceased
        to name it, InvalidGrant from then on, StorageUnavailable.
        """
        upstream = self.upstream_of(connection)
        if upstream is not None:
            return upstream
        now = int(self._clock())
        since = await self._absent.since(_registered(connection), now)
        # A moment that lies ahead was noted before the clock was set back.
        if now - since < grace:
            raise TemporarilyUnavailable(
                "upstream_registration_changed", retry_after=_RETRY_SECONDS
            )
        raise InvalidGrant("upstream_registration_changed")

    def named(self) -> set[Registered]:
        """Every registration that is in use now; each also as rows of before know it."""
        now = self._clock()
        named = set()
        for name, upstream in self._upstreams.items():
            in_use = (former.upstream for former in upstream.former if now < former.until)
            for one in (upstream, *in_use):
                named |= {(name, one.registration), (name, _of_issuer(one.user_issuer))}
        return named

    async def bind(self) -> int:
        """Bind connections stored before registrations were to those of now; at the start.

        Then a later slip in the client id costs them no more than others. Where a former
        registration has the same issuer, nobody knows which of the two gave the tokens: those
        are bound at their next refresh. The number of connections.
        """
        bound = 0
        for name, upstream in self._upstreams.items():
            issuers = [former.upstream.user_issuer for former in upstream.former]
            if upstream.user_issuer not in issuers:
                bound += await self._absent.bind(name, upstream.user_issuer, upstream.registration)
        return bound


def belongs_to(connection: Connection, upstream: Upstream) -> bool:
    """Whether an upstream's registration is the one that the connection's tokens were given to.

    Rows that were stored before registrations were are known by their issuer alone.
    """
    if connection.registration is None:
        return connection.upstream_issuer == upstream.user_issuer
    return connection.registration == upstream.registration


def _registered(connection: Connection) -> Registered:
    registration = connection.registration or _of_issuer(connection.upstream_issuer)
    return connection.key.upstream, registration


def _of_issuer(issuer: str) -> ClientRegistration:
    return ClientRegistration(issuer, "")
