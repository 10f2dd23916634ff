"""Reading what a token endpoint answers (RFC 6749 section 5), with the quirks of real ones."""

import math
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from authserver.storage.records import UpstreamTokens
from authserver.upstream.account_origins import AccountHosts
from authserver.upstream.contract import (
    GrantRevoked,
    OutcomeUnknown,
    Unavailable,
    UpstreamFailure,
)
from authserver.upstream.http_client import Answer
from authserver.values import Value

_MAX_TOKEN_LENGTH: Final = 16 * 1024
_MAX_LIFE_SECONDS: Final = 10 * 365 * 86400
# What providers say when a grant is over, in lower case. The presets add words of their own.
_DEAD: Final = frozenset(
    {
        "invalid_grant", "bad_refresh_token", "invalid_refresh_token", "token_revoked",
        "interaction_required", "consent_required", "login_required", "access_denied",
        "expired_token", "invalid_token",
    }
)  # fmt: skip
# What is said of our client, which a new sign-in of the user would not mend.
OF_OUR_CLIENT: Final = frozenset(
    {
        "invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
        "incorrect_client_credentials", "bad_client_secret", "invalid_client_id",
    }
)  # fmt: skip
# What passes by itself, though it comes with a status of a refusal.
PASSING: Final = frozenset(
    {
        "server_error", "temporarily_unavailable", "service_unavailable", "slow_down",
        "ratelimited", "rate_limited", "internal_error", "fatal_error", "request_timeout",
    }
)  # fmt: skip
# Statuses that say: not now. The request was turned away before anybody acted on it. 529 is
# Notion's: it names overload, and asks to be treated as 429 (its page "Request limits").
BUSY: Final = frozenset({408, 425, 429, 503, 529})
_REFUSALS: Final = frozenset({200, 400, 401, 403})
# draft-ietf-oauth-refresh-token-expiration, and what GitHub, Google and Keycloak say before it.
_REFRESH_LIFETIMES: Final = (
    "refresh_token_timeout",
    "refresh_token_expires_in",
    "refresh_expires_in",
)


class TokenRules(Value, frozen=True):
    """How one upstream's token answers are read.

    `dead_grant` are words of the `error` member, or `member=value` for a dotted path in the
    answer, that say that a grant is over. `account_hosts`: what is believed of where APIs are.
    """

    types: tuple[str, ...] = ("bearer",)
    type_may_be_absent: bool = False
    scope_separator: str = " "
    scope_member: str = "scope"
    dead_grant: tuple[str, ...] = ()
    account_hosts: AccountHosts = msgspec.field(default_factory=AccountHosts)


def read_tokens(
    answer: Answer, rules: TokenRules, *, now: int, previous: UpstreamTokens | None = None
) -> UpstreamTokens:
    """The tokens of a token endpoint's answer; `previous` are those that were refreshed.

    A refresh that brings a usable new token is a success, whatever else in it is odd: the old
    refresh token may be spent by then. Raises GrantRevoked; Unavailable where the upstream refused
    without acting; OutcomeUnknown where nobody can tell.
    """
    body = answer.body
    granted = 200 <= answer.status < 300 and answer.readable
    if not granted or (previous is None and _error_of(body) is not None):
        raise _failure(answer, rules)
    wrong = _wrong_member(body, rules, at_refresh=previous is not None)
    refresh_token = _token(body.get("refresh_token"))
    if wrong is None:
        return _tokens(body, rules, now, refresh_token, previous)
    if previous is None or refresh_token in (None, previous.refresh_token):
        if _error_of(body) is not None:
            raise _failure(answer, rules)
        raise OutcomeUnknown("unusable_answer", member=wrong)
    # The access token cannot be lent, but the old refresh token is spent and this one is not.
    return replace(
        previous,
        refresh_token=refresh_token,
        expires_at=now if previous.expires_at is None else previous.expires_at,
        refresh_expires_at=_refresh_end(body, now, refresh_token, previous),
        authorization_expires_at=_authorization_end(body, now, previous),
    )


def value_at(body: Any, path: str) -> Any:
    """The value at a dotted path of members, or None."""
    for name in path.split("."):
        body = body.get(name) if isinstance(body, dict) else None
    return body


def _tokens(
    body: dict[str, Any],
    rules: TokenRules,
    now: int,
    refresh_token: str | None,
    previous: UpstreamTokens | None,
) -> UpstreamTokens:
    lifetime = _lifetime(body.get("expires_in"))
    scope = _scope(body.get(rules.scope_member), rules.scope_separator)
    return UpstreamTokens(
        access_token=body["access_token"],
        refresh_token=refresh_token or (previous.refresh_token if previous else None),
        # RFC 6749 section 6: a scope that is left out is the one granted before.
        scope=previous.scope if scope is None and previous else scope,
        obtained_at=now,
        expires_at=now + lifetime if lifetime is not None else None,
        refresh_expires_at=_refresh_end(body, now, refresh_token, previous),
        authorization_expires_at=_authorization_end(body, now, previous),
        origins=rules.account_hosts.origins(body, previous.origins if previous else ()),
    )


def _refresh_end(
    body: dict[str, Any], now: int, refresh_token: str | None, previous: UpstreamTokens | None
) -> int | None:
    """When the refresh token ends if it is not presented; a new one has an end of its own."""
    for name in _REFRESH_LIFETIMES:
        if (lifetime := _lifetime(body.get(name))) is not None:
            return now + lifetime
    kept = previous is not None and refresh_token in (None, previous.refresh_token)
    return previous.refresh_expires_at if previous is not None and kept else None


def _authorization_end(
    body: dict[str, Any], now: int, previous: UpstreamTokens | None
) -> int | None:
    """When the user's authorization ends; what was said before holds until something else is."""
    lifetime = _lifetime(body.get("authorization_expires_in"))
    if lifetime is not None:
        return now + lifetime
    return previous.authorization_expires_at if previous is not None else None


def _wrong_member(body: dict[str, Any], rules: TokenRules, *, at_refresh: bool) -> str | None:
    """Which member keeps the access token from being lent."""
    if _token(body.get("access_token")) is None:
        return "access_token"
    kind = body.get("token_type")
    if kind in (None, ""):
        return None if rules.type_may_be_absent or at_refresh else "token_type"
    # Another type (DPoP, MAC) is bound to a key that we could not lend.
    return None if isinstance(kind, str) and kind.lower() in rules.types else "token_type"


def _error_of(body: dict[str, Any]) -> object:
    """The `error` member, None where there is none or it is empty."""
    return body.get("error") or None


def _failure(answer: Answer, rules: TokenRules) -> UpstreamFailure:
    status, error = answer.status, _error_of(answer.body)
    word = error.lower() if isinstance(error, str) else None
    if status == 401 and word == "access_denied":
        # Auth0 and Atlassian say so of a wrong client secret, which costs no user a grant.
        return Unavailable("upstream_refused", member="error", lasting=True)
    if _ends_grant(answer.body, word, rules.dead_grant):
        return GrantRevoked("upstream_ended_the_grant")
    if status in BUSY:
        return Unavailable("upstream_busy", retry_after=answer.retry_after)
    if status >= 500:
        # A gateway may have waited in vain, and a server may have failed after it acted.
        return OutcomeUnknown("upstream_timed_out" if status == 504 else "upstream_failed")
    if 200 <= status < 300 and error is None:
        return OutcomeUnknown("unreadable_answer")
    if word in OF_OUR_CLIENT:
        return Unavailable("upstream_refused", member="error", lasting=True)
    return Unavailable(
        "upstream_refused", member="error", refused=_is_definite(answer, word, error)
    )


def _is_definite(answer: Answer, word: str | None, error: object) -> bool:
    """Whether the upstream itself turned down this request, and not a proxy or our client."""
    return (
        answer.status in _REFUSALS
        and bool(answer.body)
        and word not in PASSING
        and (answer.status != 401 or error is not None)
    )


def _ends_grant(body: dict[str, Any], word: str | None, more: tuple[str, ...]) -> bool:
    if word is not None and (word in _DEAD or word in (one.lower() for one in more)):
        return True
    shapes = (one.partition("=") for one in more if "=" in one)
    return any(_text(value_at(body, path)) == value.lower() for path, _, value in shapes)


def _text(value: object) -> str | None:
    return str(value).lower() if isinstance(value, str | int) else None


def _token(value: object) -> str | None:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TOKEN_LENGTH:
        return None
    return value if value.isascii() and value.isprintable() and " " not in value else None


def _scope(value: object, separator: str) -> str | None:
    """What was granted, with spaces between, whatever the upstream puts there."""
    if isinstance(value, list):
        if not all(isinstance(part, str) for part in value):
            return None
        value = " ".join(value)
    if not isinstance(value, str) or len(value) > 4096:
        return None
    return " ".join(part for part in value.replace(separator, " ").split(" ") if part)


def _lifetime(value: object) -> int | None:
    """Whole seconds, at most ten years; None where nothing usable is said.

    Providers send floats and texts, and 0 for a token without an end.
    """
    if isinstance(value, str):
        try:
            value = float(value) if len(value) <= 32 and "_" not in value else None
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return int(min(value, _MAX_LIFE_SECONDS)) if value >= 1 else None
