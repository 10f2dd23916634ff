"""Reading what a token endpoint answers (RFC 6749 section 5), with the quirks of real ones."""

from typing import Any, Final

from authserver.storage.records import UpstreamTokens
from authserver.upstream.contract import GrantRevoked, OutcomeUnknown, Unavailable

_MAX_TOKEN_LENGTH: Final = 16 * 1024
_MAX_LIFE_SECONDS: Final = 10 * 365 * 86400
# What providers say when a grant is over; GitHub and Slack have words of their own.
_DEAD: Final = frozenset(
    {"invalid_grant", "bad_refresh_token", "invalid_refresh_token", "token_revoked"}
)


def read_tokens(
    status: int,
    body: dict[str, Any],
    *,
    now: int,
    presented: str | None = None,
    types: tuple[str, ...] = ("bearer",),
    scope_separator: str = " ",
) -> UpstreamTokens:
    """The tokens of a token endpoint's answer; `presented` is kept where no new one comes.

    Raises GrantRevoked; Unavailable where the upstream refused without acting; OutcomeUnknown for a
    success that cannot be used, and where nobody says whether the upstream acted.
    """
    error = body.get("error")
    if status != 200 or error is not None:  # GitHub says 200 to errors too
        if isinstance(error, str) and error in _DEAD:
            raise GrantRevoked("upstream_ended_the_grant")
        if status == 504:  # a proxy waited for the upstream in vain: it may have acted
            raise OutcomeUnknown("upstream_timed_out")
        raise Unavailable("upstream_refused" if status < 500 else "upstream_failed")
    access_token = _token(body.get("access_token"))
    if access_token is None or not _is_of(types, body.get("token_type")):
        raise OutcomeUnknown("unusable_answer")
    lifetime = _lifetime(body.get("expires_in"))
    scope = body.get("scope")
    return UpstreamTokens(
        access_token=access_token,
        refresh_token=_token(body.get("refresh_token")) or presented,
        scope=_scope(scope, scope_separator),
        obtained_at=now,
        expires_at=now + lifetime if lifetime is not None else None,
    )


def _token(value: object) -> str | None:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TOKEN_LENGTH:
        return None
    return value if value.isascii() and value.isprintable() and " " not in value else None


def _is_of(types: tuple[str, ...], value: object) -> bool:
    # Another type (DPoP, MAC) is bound to a key that we could not lend.
    return isinstance(value, str) and value.lower() in types


def _scope(value: object, separator: str) -> str | None:
    """What was granted, with spaces between, whatever the upstream puts there."""
    if not isinstance(value, str) or len(value) > 4096:
        return None
    return " ".join(part for part in value.replace(separator, " ").split(" ") if part)


def _lifetime(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        value = int(value)
    if value is None:
        return None
    if type(value) is not int or not 0 < value <= _MAX_LIFE_SECONDS:
        raise OutcomeUnknown("unusable_answer")
    return value
