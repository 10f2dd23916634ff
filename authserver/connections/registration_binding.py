"""Which configured upstream a connection belongs to: the one whose registration it came from.

A refresh token is shared only between the client and the server that issued it (RFC 6749 section
10.4). Where the configuration now says another issuer, token endpoint or client id, the connection
is neither released, nor presented, nor revoked. It counts again when the old values come back.
"""

from collections.abc import Iterator
from typing import Final

from authserver.oauth.errors import InvalidGrant, TemporarilyUnavailable
from authserver.storage.records import ClientRegistration, Connection
from authserver.upstream.contract import Upstream, Upstreams
from chassis.clock import Clock

# A slip is put right within this time, and then it has cost nobody a sign-in.
_GRACE_SECONDS: Final = 600


class RegistrationBinding:
    def __init__(self, upstreams: Upstreams, clock: Clock) -> None:
        self._upstreams, self._clock = upstreams, clock
        self._known: dict[str, tuple[ClientRegistration, ...]] = {}
        self._since: dict[str, float] = {}

    def configured(self) -> None:
        """Notice what the configuration says from now on; at the start and after each reload."""
        now = self._clock()
        known = {name: _registrations(upstream) for name, upstream in self._upstreams.items()}
        for name in known.keys() | self._known.keys():
            if known.get(name) != self._known.get(name):
                self._since[name] = now
        self._known = known

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

    def check(self, connection: Connection) -> Upstream:
        """The upstream that a connection may be used with.

        Raises TemporarilyUnavailable in the first ten minutes after the configuration changed to
        another registration, InvalidGrant from then on.
        """
        upstream = self.upstream_of(connection)
        if upstream is not None:
            return upstream
        if self._changed_recently(connection):
            raise TemporarilyUnavailable("upstream_registration_changed", retry_after=30)
        raise InvalidGrant("upstream_registration_changed")

    def _changed_recently(self, connection: Connection) -> bool:
        name, now = connection.key.upstream, self._clock()
        upstream = self._upstreams.get(name)
        moments = [self._since.get(name, now)]
        for former in upstream.former if upstream is not None else ():
            if belongs_to(connection, former.upstream):
                moments.append(former.until)
        # A moment that lies ahead was noted before the clock was set back.
        return now - max(moments) < _GRACE_SECONDS

    def named(self) -> Iterator[tuple[str, ClientRegistration]]:
        """Every registration that is in use now, with its upstream's name."""
        now = self._clock()
        for name, upstream in self._upstreams.items():
            yield name, upstream.registration
            for former in upstream.former:
                if now < former.until:
                    yield name, former.upstream.registration


def belongs_to(connection: Connection, upstream: Upstream) -> bool:
    """Whether an upstream's registration is the one that the connection's tokens were given to.

    Rows that were stored before registrations were are known by their issuer alone.
    """
    if connection.registration is None:
        return connection.upstream_issuer == upstream.user_issuer
    return connection.registration == upstream.registration


def _registrations(upstream: Upstream) -> tuple[ClientRegistration, ...]:
    return (upstream.registration, *(one.upstream.registration for one in upstream.former))
