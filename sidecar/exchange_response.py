"""What the authserver's answer means: a token whose every member was checked, or a refusal.

Nothing of the answer is trusted beyond contract: it is remembered, and handed to the caller.
"""

from typing import Any, Final

from chassis.strict_json import InvalidJson, parse_object
from sidecar.cached_token import Token
from sidecar.errors import (
    INVALID_TOKEN,
    RATE_LIMITED,
    REAUTHENTICATION_REQUIRED,
    TEMPORARILY_UNAVAILABLE,
    UNKNOWN_UPSTREAM,
    UPSTREAM_NOT_NAMED,
    ApiError,
)
from sidecar.token_request import is_access_token, is_upstream_name

ACCESS_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105

_MAX_SECONDS: Final = 10 * 365 * 86_400
_MAX_RETRY_AFTER: Final = 3_600

# A release never carries these; one that does comes from a broken server, or from no server of
# ours. Members we do not know are left alone: a newer authserver may send them.
_NEVER_RELEASED: Final = frozenset({"refresh_token", "id_token", "client_secret"})

_UNNAMED: Final = ("invalid_target", "invalid_request")

_DENIED: Final = {
    "invalid_request": INVALID_TOKEN,
    "invalid_grant": REAUTHENTICATION_REQUIRED,
    "invalid_target": UNKNOWN_UPSTREAM,
}


def read_answer(
    status: int,
    content_type: str,
    retry_after: str | None,
    body: bytes,
    *,
    requested_upstream: str | None,
) -> Token | ApiError:
    """Read one HTTP answer to an exchange that asked for the upstream `asked`."""
    seconds = _retry_after(retry_after)
    match status:
        case 429:
            return RATE_LIMITED.with_reason("rate_limited", retry_after=seconds)
        case 503:
            return TEMPORARILY_UNAVAILABLE.with_reason("unavailable", retry_after=seconds)
        case 401 | 403:
            return TEMPORARILY_UNAVAILABLE.with_reason("identity_refused")
    members = _members(content_type, body)
    if status == 200:
        return _token(members, requested_upstream)
    if status == 400 and requested_upstream is None and _wants_a_name(members):
        return UPSTREAM_NOT_NAMED
    denied = _DENIED.get(str(members.get("error"))) if status == 400 else None
    if denied is not None:
        return denied.with_reason("denied")
    return TEMPORARILY_UNAVAILABLE.with_reason("unexpected_answer")


def _wants_a_name(members: dict[str, Any]) -> bool:
    """Whether we are the owner and have to say which upstream is meant.

    What strangers are told has no description, so that nobody can tell its reasons apart. Until
    version 0.2 the authserver said `invalid_request` here.
    """
    return members.get("error") in _UNNAMED and "error_description" in members


def _token(members: dict[str, Any], requested_upstream: str | None) -> Token | ApiError:
    for name, holds in (
        ("access_token", is_access_token(members.get("access_token"))),
        ("issued_token_type", members.get("issued_token_type") == ACCESS_TOKEN_TYPE),
        ("token_type", str(members.get("token_type")).lower() == "bearer"),
        ("upstream", is_upstream_name(members.get("upstream"))),
        ("upstream", requested_upstream in (None, members.get("upstream"))),
        ("scope", isinstance(members.get("scope", ""), str)),
        ("expires_in", _is_seconds(members.get("expires_in", 1), at_least=1)),
        ("cache_ttl", _is_seconds(members.get("cache_ttl"), at_least=0)),
        ("secret", _NEVER_RELEASED.isdisjoint(members)),
    ):
        if not holds:
            return TEMPORARILY_UNAVAILABLE.with_reason(f"bad_answer_{name}")
    return Token(
        access_token=members["access_token"],
        upstream=members["upstream"],
        cache_ttl=members["cache_ttl"],
        expires_in=members.get("expires_in"),
        scope=members.get("scope"),
    )


def _members(content_type: str, body: bytes) -> dict[str, Any]:
    """The members of a JSON object; of anything else, none."""
    if content_type != "application/json":
        return {}
    try:
        return parse_object(body)
    except InvalidJson:
        return {}


def _is_seconds(value: object, *, at_least: int) -> bool:
    # `type` and not isinstance: true and false are integers to Python.
    return type(value) is int and at_least <= value <= _MAX_SECONDS


def _retry_after(text: str | None) -> int | None:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 9:
        return None
    return min(max(1, int(text)), _MAX_RETRY_AFTER)
