"""Release of a token that an exchange makes (RFC 8693): which one is meant, and the stored one.

What a server may ask for is a part of what its operator allows. A wider wish is refused to the
proven owner alone, after the session was looked at.
"""

from dataclasses import dataclass, field

from authserver.connections.token_exchanger import TokenExchanger, WantedToken, exchanged_key
from authserver.internal.denial_reasons import DenialReason
from authserver.internal.exchange_request import ExchangeRequest
from authserver.oauth.errors import InvalidGrant, InvalidScope, InvalidTarget, ProtocolError
from authserver.oauth.exchange_target import ExchangeTarget, WiderAudience, WiderScope
from authserver.storage.exchanged_tokens import ExchangedTokens, UpstreamNotNamed
from authserver.storage.records import Connection, ConnectionKey
from authserver.upstream.contract import ExchangingUpstream


@dataclass(frozen=True, slots=True)
class ExchangeMeant:
    """What a request means at an exchanged upstream.

    `target` is what is asked for; that of the configuration where `refusal` says that the request
    wants more. `parent` is where the connection is that the token is made of.
    """

    upstream: ExchangingUpstream
    target: ExchangeTarget
    parent: ConnectionKey
    refusal: ProtocolError | None = field(default=None, compare=False)

    @property
    def key(self) -> ConnectionKey:
        return exchanged_key(self.parent, self.upstream, self.target)


def meant(
    upstream: ExchangingUpstream, parent: ConnectionKey, request: ExchangeRequest
) -> ExchangeMeant:
    """The token that a request means; it is narrower than configured, or as configured."""
    try:
        target = upstream.target.narrowed(request.target_audience, request.scope)
    except WiderAudience:
        refusal: ProtocolError = InvalidTarget(
            DenialReason.TARGET_AUDIENCE_NOT_PERMITTED, "target_audience is not permitted here"
        ).with_members(parameter="target_audience")
    except WiderScope:
        refusal = InvalidScope(
            DenialReason.SCOPE_NOT_PERMITTED, "scope is not permitted here"
        ).with_members(parameter="scope")
    else:
        return ExchangeMeant(upstream, target, parent)
    return ExchangeMeant(upstream, upstream.target, parent, refusal)


class ExchangedRelease:
    """Looks exchanged tokens up and has them made."""

    def __init__(self, exchanged_tokens: ExchangedTokens, exchanger: TokenExchanger) -> None:
        self._exchanged_tokens, self._exchanger = exchanged_tokens, exchanger

    async def stored(
        self,
        token: ExchangeMeant,
        tsid: str,
        *,
        client_id: str,
        resource: str,
        now: float,
        owner_uids: tuple[str, str],
    ) -> tuple[Connection | None, bool]:
        """The stored token, and whether the session's authorization named its upstream.

        Raises NoSuchSession and UserBlocked.
        """
        try:
            released = await self._exchanged_tokens.of_session(
                tsid,
                token.key,
                client_id=client_id,
                resource=resource,
                now=now,
                owner_uids=owner_uids,
            )
        except UpstreamNotNamed:
            return None, False
        return released, True

    def usable_now(self, stored: Connection, min_ttl: int) -> bool:
        """Whether a stored token can be released as it is."""
        return self._exchanger.usable_now(stored, min_ttl)

    async def made(
        self,
        token: ExchangeMeant,
        stored: Connection | None,
        parent: Connection | None,
        *,
        min_ttl: int,
        rejected: bool,
    ) -> Connection:
        """A token made now. Raises InvalidGrant, TemporarilyUnavailable and RateLimited."""
        if parent is None:
            raise InvalidGrant(DenialReason.NO_CONNECTION)
        wanted = WantedToken(parent, token.upstream, token.target, stored)
        return await self._exchanger.usable(wanted, min_ttl=min_ttl, rejected=rejected)
