"""How fresh a connection's tokens are, as far as its stored record tells.

Pure functions of a connection, an upstream and the time; seconds throughout.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

from authserver.connections.registration_binding import belongs_to
from authserver.storage.records import Connection, UpstreamTokens
from authserver.upstream.contract import Upstream

_MARGIN_SECONDS: Final = 60
# How much earlier than stale a token may be renewed, as a part of its margin.
_MAX_AHEAD: Final = 0.5
_LONG_ENOUGH_SECONDS: Final = 300
# No refresh takes longer; one claimed before has nobody behind it.
_CLAIM_SECONDS: Final = 60


def margin(tokens: UpstreamTokens) -> float:
    """How long before its end a token counts as stale: a minute, or a fifth of a short life."""
    if tokens.expires_at is None:
        return 0.0
    return min(_MARGIN_SECONDS, (tokens.expires_at - tokens.obtained_at) / 5)


def lasts(tokens: UpstreamTokens, now: float, seconds: float) -> bool:
    """Whether the token is valid for more than `seconds` from now, as far as is known."""
    return tokens.expires_at is None or tokens.expires_at - now > seconds


def refreshable(connection: Connection) -> bool:
    """Whether a refresh token is stored that may still work."""
    return not connection.dead and connection.tokens.refresh_token is not None


def renewal_window(connection: Connection) -> float:
    """From how long before its end a token is renewed in the background.

    Up to half the margin earlier than anybody would have to wait. By how much differs from
    generation to generation, so that sign-ins of one moment do not come back in one moment.
    """
    key = connection.key
    seed = f"{key.user_id} {key.upstream} {connection.generation}".encode()
    spread = hashlib.blake2s(seed, digest_size=2).digest()
    return margin(connection.tokens) * (1 + int.from_bytes(spread, "big") / 0x10000 * _MAX_AHEAD)


def renewal_due(connection: Connection, now: float) -> bool:
    """Whether it is time to renew the token although it still serves."""
    tokens = connection.tokens
    return (
        not lasts(tokens, now, margin(tokens) * (1 + _MAX_AHEAD))  # the cheap test first
        and refreshable(connection)
        and not lasts(tokens, now, renewal_window(connection))
    )


def uncertain_since(connection: Connection, now: float, lease: int) -> int | None:
    """From when on the refresh token may have been taken without an answer that we know.

    None where nothing is unknown, or where its first presentation is under way. `lease` seconds
    after it was taken, a claim has nobody behind it.
    """
    first, claimed_at = connection.first_claimed_at, connection.refresh_claimed_at
    if connection.refresh_claim is None or claimed_at is None:
        return first
    return first if claimed_at < now - lease or (first or claimed_at) < claimed_at else None


def healthy(connection: Connection, upstream: Upstream | None, now: float) -> bool:
    """Whether the connection can serve without its user, with the scopes asked for now."""
    return (
        upstream is not None
        and belongs_to(connection, upstream)
        and _asked_for(connection, upstream)
        and not connection.dead
        and not connection.rejected
        and connection.refusals == 0
        and uncertain_since(connection, now, _CLAIM_SECONDS) is None
        and (
            connection.tokens.refresh_token is not None
            or lasts(connection.tokens, now, _LONG_ENOUGH_SECONDS)
        )
    )


def _asked_for(connection: Connection, upstream: Upstream) -> bool:
    """Whether what was asked for is what is asked for now, or that and what may be asked beyond."""
    requested = set(connection.asked_scope.split())
    always = set(upstream.scopes)
    return always <= requested <= always | set(upstream.step_up_scopes)


def lacking_scopes(connection: Connection, scopes: Iterable[str]) -> list[str]:
    """Those of `scopes` that the connection does not hold.

    An upstream that does not say what it granted granted what was asked (RFC 6749 section 5.1).
    """
    stored = connection.tokens.scope
    granted = set((connection.asked_scope if stored is None else stored).split())
    return [scope for scope in scopes if scope not in granted]


def asked_scope(upstream: Upstream) -> str:
    """The scopes a sign-in at this upstream asks for, with spaces between."""
    return " ".join(upstream.scopes)
