"""Reading what a token endpoint answers to an exchange (RFC 8693 section 2.2).

Only the members named here are kept. A member that is missing or wrong is named in the failure,
its value never is.
"""

from collections.abc import Collection
from typing import Any, Final

from msgspec.structs import replace

from authserver.oauth.exchange_target import JWT_TYPE, ExchangeTarget
from authserver.storage.records import UpstreamTokens
from authserver.upstream.contract import (
    GrantRevoked,
    OutcomeUnknown,
    SubjectTokenRefused,
    Unavailable,
)
from authserver.upstream.http_client import Answer
from authserver.upstream.token_response import TokenRules, read_tokens

# What is said of the subject token. RFC 8693 section 2.2.2 demands `invalid_request`, which many
# servers do not say.
_OF_THE_TOKEN: Final = frozenset(
    {
        "invalid_request", "invalid_grant", "invalid_token", "expired_token", "token_revoked",
        "token_expired",
    }
)  # fmt: skip
# What is said of our request, and does not pass by itself: the operator has to look.
_OF_OUR_REQUEST: Final = frozenset(
    {
        "access_denied", "invalid_client", "invalid_scope", "invalid_target", "unauthorized_client",
        "unsupported_grant_type", "consent_required", "interaction_required",
    }
)  # fmt: skip
# The token type of what is no access token (RFC 8693 section 2.2.1).
_NOT_APPLICABLE: Final = "n_a"


def read_exchanged(
    answer: Answer,
    rules: TokenRules,
    target: ExchangeTarget,
    *,
    added: Collection[str],
    now: int,
) -> UpstreamTokens:
    """The token in an answer to an exchange for `target`; `added` are scopes of every token.

    Raises SubjectTokenRefused, Unavailable or OutcomeUnknown. A token that is wider than what was
    asked for, or of another type, is not used.
    """
    _check_error(answer)
    body = _without_type(answer.body, target)
    try:
        tokens = read_tokens(replace(answer, body=body), rules, now=now)
    except GrantRevoked:
        raise SubjectTokenRefused from None
    if body.get("issued_token_type") != target.token_type:
        raise OutcomeUnknown("unusable_answer", member="issued_token_type")
    if target.beyond((tokens.scope or "").split(), added):
        raise Unavailable("exchange_gave_more", member="scope", lasting=True)
    if tokens.scope is None and target.scopes:
        # RFC 8693 section 2.2.1: a scope that is left out is the one that was asked for.
        return replace(tokens, scope=" ".join(target.scopes))
    return tokens


def _check_error(answer: Answer) -> None:
    error = answer.body.get("error")
    word = error.lower() if isinstance(error, str) else ""
    if answer.status < 400 or answer.status >= 500 or answer.status == 429:
        return
    if word in _OF_THE_TOKEN:
        raise SubjectTokenRefused
    if word in _OF_OUR_REQUEST:
        raise Unavailable("exchange_refused", member="error", lasting=True)


def _without_type(body: dict[str, Any], target: ExchangeTarget) -> dict[str, Any]:
    """The body as of a bearer token, where a JWT was asked for and its type does not apply."""
    kind = body.get("token_type")
    if target.token_type == JWT_TYPE and isinstance(kind, str) and kind.lower() == _NOT_APPLICABLE:
        return body | {"token_type": "Bearer"}
    return body
