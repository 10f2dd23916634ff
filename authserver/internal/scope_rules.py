"""What an owner may want of a token: scopes that are missing, or a narrower one.

Each refusal here goes to the session's proven owner alone, and names the `parameter` it is about.
"""

from collections.abc import Collection

from authserver.connections.freshness import lacking_scopes
from authserver.internal.denial_reasons import DenialReason
from authserver.internal.exchange_request import ExchangeRequest
from authserver.oauth.errors import (
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    StepUpDeclined,
    StepUpRequired,
)
from authserver.oauth.scopes import upstream_scope
from authserver.storage.records import Connection, Session
from authserver.tokens.access_tokens import VerifiedClaims
from authserver.upstream.contract import Upstream


def check_narrower(request: ExchangeRequest) -> None:
    """What users sign in to is never narrowed. Raises InvalidTarget or InvalidScope for a wish."""
    if request.target_audience is not None:
        raise InvalidTarget(
            DenialReason.TARGET_AUDIENCE_NOT_PERMITTED, "no target_audience is configured"
        ).with_members(parameter="target_audience")
    if request.scope:
        raise InvalidScope(
            DenialReason.SCOPE_NOT_PERMITTED, "no narrower scope is configured"
        ).with_members(parameter="scope")


def check_missing_scope_permitted(missing: Collection[str], upstream: Upstream | None) -> None:
    """Whether the operator lets a user be asked for all of these. Raises InvalidRequest.

    For what an exchange makes, nobody is asked.
    """
    permitted: tuple[str, ...] = ()
    if upstream is not None and not upstream.made_of:
        permitted = (*upstream.scopes, *upstream.step_up_scopes)
    if not set(missing) <= set(permitted):
        raise InvalidRequest(
            DenialReason.MISSING_SCOPE_NOT_PERMITTED, "missing_scope is not permitted here"
        ).with_members(parameter="missing_scope")


def lacking_required(required: Collection[str], claims: VerifiedClaims) -> tuple[str, ...]:
    """Scopes without which the resource's server answers no call, and that a JWT does not have."""
    granted = claims.scope.split()
    return tuple(scope for scope in required if scope not in granted)


def required_scope_missing(lacking: Collection[str], session: Session) -> StepUpRequired:
    """The refusal of such a JWT; it names what its client has to ask for."""
    scope = " ".join(dict.fromkeys((*session.scope.split(), *lacking)))
    return StepUpRequired(DenialReason.REQUIRED_SCOPE_MISSING, scope)


def check_granted(missing: Collection[str], connection: Connection, session: Session) -> None:
    """Whether the connection holds these scopes. Raises StepUpRequired with those to ask for.

    What the user has declined in this session is not asked for again: nothing is said of it then.
    """
    lacking = lacking_scopes(connection, missing)
    wanted = [upstream_scope(connection.key.upstream, scope) for scope in lacking]
    if not set(session.declined_scopes).isdisjoint(wanted):
        raise StepUpDeclined(DenialReason.SCOPE_DECLINED)
    if wanted:
        raise StepUpRequired(
            DenialReason.INSUFFICIENT_SCOPE, " ".join((*session.scope.split(), *wanted))
        )
