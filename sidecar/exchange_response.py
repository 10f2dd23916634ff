"""What the authserver's answer means: a token whose every member was checked, or a refusal.

Nothing of the answer is trusted beyond contract: it is remembered, and handed to the caller.
"""

import re
from dataclasses import replace
from typing import Any, Final

from chassis.strict_json import InvalidJson, parse_object
from sidecar.apis import (
    ATTACH,
    HAND_OUT,
    Api,
    InvalidApis,
    UnplacedApi,
    read_apis,
    read_unplaced,
)
from sidecar.cached_token import Token
from sidecar.errors import (
    INSUFFICIENT_SCOPE,
    INVALID_TOKEN,
    NARROWER_NOT_PERMITTED,
    RATE_LIMITED,
    REAUTHENTICATION_REQUIRED,
    SCOPE_NOT_PERMITTED,
    TEMPORARILY_UNAVAILABLE,
    UNKNOWN_UPSTREAM,
    UPSTREAM_NOT_NAMED,
    ApiError,
)
from sidecar.identity import InvalidIdentity, read_identity
from sidecar.scopes import is_scope
from sidecar.token_request import TokenRequest, is_access_token, is_upstream_name

ACCESS_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105

_MAX_SECONDS: Final = 10 * 365 * 86_400
_MAX_RETRY_AFTER: Final = 3_600

# A release never carries these; one that does comes from a broken server, or from no server of
# ours. Members we do not know are left alone: a newer authserver may send them.
_NEVER_RELEASED: Final = frozenset({"refresh_token", "id_token", "client_secret"})

# An authserver that says nothing of `release` is older than the policy: its configuration has no
# such member, so no operator has forbidden a hand-out there, and none has permitted Attach.
_BEFORE_THE_POLICY: Final = [HAND_OUT]

# What the owner alone hears, by the `parameter` that it is about.
_NOT_PERMITTED: Final = {
    "missing_scope": SCOPE_NOT_PERMITTED,
    "target_audience": NARROWER_NOT_PERMITTED,
    "scope": NARROWER_NOT_PERMITTED,
}
_CONNECT_URL: Final = re.compile(
    r"(?:https://|http://(?:127\.0\.0\.1|localhost|\[::1\])[:/])[!#-;=?-\[\]_a-z~]{1,2000}",
    re.ASCII,
)

_UNNAMED: Final = ("invalid_target", "invalid_request")

_UNEXPECTED: Final = TEMPORARILY_UNAVAILABLE.with_reason("unexpected_answer")
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
    token_request: TokenRequest,
) -> Token | ApiError:
    """Read one HTTP answer to an exchange that asked for `token_request`."""
    seconds = _retry_after(retry_after)
    match status:
        case 429:
            return RATE_LIMITED.with_reason("rate_limited", retry_after=seconds)
        case 503:
            return TEMPORARILY_UNAVAILABLE.with_reason("unavailable", retry_after=seconds)
    members = _members(content_type, body)
    match status:
        case 200:
            return _token(members, token_request.upstream)
        case 400:
            return _denial(members, token_request)
        case 403 if members.get("error") == INSUFFICIENT_SCOPE.error:
            return _step_up(members)
        case 401 | 403:
            return TEMPORARILY_UNAVAILABLE.with_reason(
                "identity_refused",
                "The authserver does not admit this workload; ask who operates it, with this"
                " request_id.",
            )
    return _UNEXPECTED


def _denial(members: dict[str, Any], token_request: TokenRequest) -> ApiError:
    if (parameter := str(members.get("parameter"))) in _NOT_PERMITTED:
        return _NOT_PERMITTED[parameter].with_reason(f"{parameter}_not_permitted")
    if token_request.upstream is None and _wants_a_name(members):
        return UPSTREAM_NOT_NAMED
    denied = _DENIED.get(str(members.get("error")))
    if denied is None:
        return _UNEXPECTED
    url = members.get("connect_url")
    if isinstance(url, str) and _CONNECT_URL.fullmatch(url) and denied is REAUTHENTICATION_REQUIRED:
        denied = replace(denied, connect_url=url)
    return denied.with_reason("denied")


def _step_up(members: dict[str, Any]) -> ApiError:
    scope = members.get("scope")
    if "scope" not in members:
        # The user has said no to it in this session: a challenge would only ask again.
        return replace(INSUFFICIENT_SCOPE, action="none", reason="declined")
    if not is_scope(scope):
        return TEMPORARILY_UNAVAILABLE.with_reason("bad_answer_scope")
    return replace(INSUFFICIENT_SCOPE, scope=scope, reason="denied")


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
    release = members.get("release", _BEFORE_THE_POLICY)
    if not isinstance(release, list) or not all(isinstance(use, str) for use in release):
        return TEMPORARILY_UNAVAILABLE.with_reason("bad_answer_release")
    try:
        apis, unplaced = _apis(members, release)
    except InvalidApis:
        return TEMPORARILY_UNAVAILABLE.with_reason("bad_answer_apis")
    try:
        identity = read_identity(members)
    except InvalidIdentity:
        return TEMPORARILY_UNAVAILABLE.with_reason("bad_answer_identity")
    return Token(
        access_token=members["access_token"],
        upstream=members["upstream"],
        cache_ttl=members["cache_ttl"],
        expires_in=members.get("expires_in"),
        scope=members.get("scope"),
        release=tuple(release),
        apis=apis,
        identity=identity,
        unplaced=unplaced,
    )


def _apis(
    members: dict[str, Any], release: list[str]
) -> tuple[tuple[Api, ...], tuple[UnplacedApi, ...]]:
    """What Attach may call, and what has no base URL; nothing where Attach may not be used."""
    if ATTACH not in release:
        return (), ()
    unplaced = read_unplaced(members.get("apis_without_base_url", []))
    return read_apis(members.get("apis", [])), unplaced


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
