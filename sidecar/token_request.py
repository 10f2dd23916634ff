"""What one call asks for, read strictly from its `Authorization` header and its JSON body."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from chassis.strict_json import InvalidJson, parse_object
from sidecar.cached_token import fingerprint
from sidecar.errors import INVALID_REQUEST, INVALID_TOKEN, NO_TOKEN, ApiError
from sidecar.scopes import SCOPES

MAX_JWT_BYTES: Final = 8 * 1024
MAX_BODY_BYTES: Final = 16 * 1024
MAX_MIN_TTL: Final = 600

_SHORT_BODY: Final = 64
_JWT: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2}", re.ASCII)
_UPSTREAM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_ACCESS_TOKEN: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)  # RFC 6749 appendix A.12
_AUDIENCE: Final = re.compile(r"[\x21-\x7e]{1,1024}", re.ASCII)
_WISHES: Final = {"missing_scope": SCOPES, "target_audience": _AUDIENCE, "scope": SCOPES}
_MEMBERS: Final = frozenset({"upstream", "min_ttl", "rejected_token", *_WISHES})


class TokenRequest(NamedTuple):
    """A token of `upstream` (None: the only one there is) that lives for `min_ttl` seconds more.

    `rejected` is the fingerprint of an access token the upstream's API refused. `missing_scope` are
    scopes that it asked for. `target_audience` and `scope` are those of a narrower token.
    """

    upstream: str | None = None
    min_ttl: int = 0
    rejected: str | None = None
    missing_scope: str | None = None
    target_audience: str | None = None
    scope: str | None = None


def is_upstream_name(text: object) -> bool:
    return isinstance(text, str) and _UPSTREAM.fullmatch(text) is not None


def is_access_token(text: object) -> bool:
    return isinstance(text, str) and _ACCESS_TOKEN.fullmatch(text) is not None


def has_jwt_shape(text: str) -> bool:
    """Three parts of base64url; whether it means anything is for the authserver to say."""
    return _JWT.fullmatch(text) is not None


def read_bearer(
    authorizations: Sequence[str], schemes: Sequence[str] = ("bearer",)
) -> str | ApiError:
    """The unverified JWT of the one `Authorization: Bearer`; its shape is not looked at.

    `schemes`, in lower case, are the names that are taken for it.
    """
    if len(authorizations) != 1:
        if not authorizations:
            return NO_TOKEN.with_reason("no_authorization")
        return INVALID_REQUEST.with_reason("two_authorizations", "Authorization must be sent once.")
    scheme, _, unverified_jwt = authorizations[0].partition(" ")
    if scheme.lower() not in schemes or not unverified_jwt:
        return NO_TOKEN.with_reason("no_bearer")
    if len(unverified_jwt) > MAX_JWT_BYTES or not unverified_jwt.isascii():
        return INVALID_TOKEN.with_reason("jwt_too_long_or_not_ascii")
    return unverified_jwt


def read_ask(body: bytes) -> TokenRequest | ApiError:
    """The JSON body of `POST /v1/token`."""
    # Programs ask the same few questions all day. A body that may hold a token is not kept.
    if len(body) <= _SHORT_BODY and b"rejected" not in body and b"\\" not in body:
        return _read_short(body)
    return _read(body)


def _read(body: bytes) -> TokenRequest | ApiError:
    if len(body) > MAX_BODY_BYTES:
        return INVALID_REQUEST.with_reason("body_too_long", "The body must be at most 16 KiB long.")
    try:
        members = parse_object(body)
    except InvalidJson:
        return INVALID_REQUEST.with_reason(
            "body_not_json", "The body must be a JSON object in UTF-8 that names no member twice."
        )
    if not members.keys() <= _MEMBERS:
        return INVALID_REQUEST.with_reason(
            "body_members", f"The body may have {', '.join(sorted(_MEMBERS))}, nothing else."
        )
    upstream = members.get("upstream")
    min_ttl = members.get("min_ttl", 0)
    rejected = members.get("rejected_token")
    if "upstream" in members and not is_upstream_name(upstream):
        return INVALID_REQUEST.with_reason("upstream", "upstream must be the name of an upstream.")
    # `type` and not isinstance: true and false are integers to Python.
    if type(min_ttl) is not int or not 0 <= min_ttl <= MAX_MIN_TTL:
        return INVALID_REQUEST.with_reason(
            "min_ttl", "min_ttl must be a whole number of seconds from 0 to 600."
        )
    if "rejected_token" in members and not is_access_token(rejected):
        return INVALID_REQUEST.with_reason(
            "rejected_token", "rejected_token must be an access token."
        )
    for name, pattern in _WISHES.items():
        value = members.get(name, "x")
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            return INVALID_REQUEST.with_reason(name, f"{name} is not of its form.")
    return TokenRequest(
        upstream,
        min_ttl,
        None if rejected is None else fingerprint(rejected),
        *(members.get(name) for name in _WISHES),
    )


_read_short: Final = lru_cache(maxsize=64)(_read)
