"""The form of a token exchange (RFC 8693 section 2.1) as a value; nothing of it is believed yet."""

import re
from typing import Final

from authserver.internal.denial_reasons import DenialReason
from authserver.oauth.errors import InvalidRequest, UnsupportedGrantType
from authserver.values import Hidden, Value

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a URN
_SUBJECT_TYPES: Final = ("urn:ietf:params:oauth:token-type:jwt", ACCESS_TOKEN_TYPE)
_FIELDS: Final = frozenset(
    {
        "grant_type", "subject_token", "subject_token_type", "audience", "min_ttl",
        "rejected_token_sha256", "requested_token_type", "missing_scope", "target_audience",
        "scope",
    }
)  # fmt: skip
_MAX_MIN_TTL_SECONDS: Final = 600
_SHA256: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_SCOPE_TOKEN: Final = r"[\x21\x23-\x5b\x5d-\x7e]{1,256}"  # noqa: S105 - RFC 6749 section 3.3
_SCOPE: Final = re.compile(rf"{_SCOPE_TOKEN}(?: {_SCOPE_TOKEN}){{0,63}}", re.ASCII)
_AUDIENCE: Final = re.compile(r"[\x21-\x7e]{1,1024}", re.ASCII)


class ExchangeRequest(Value, frozen=True):
    """A well-formed exchange request, nothing of it believed yet.

    `missing_scope`: scopes that the upstream's API asked for. `target_audience` and `scope`: those
    of a narrower token.
    """

    unverified_jwt: Hidden[str]
    upstream: str | None
    min_ttl: int
    rejected_sha256: str | None
    missing_scope: tuple[str, ...] = ()
    target_audience: str | None = None
    scope: tuple[str, ...] = ()


def parse(fields: dict[str, str]) -> ExchangeRequest:
    """The request in a form's fields. Raises InvalidRequest or UnsupportedGrantType."""
    grant_type = fields.get("grant_type")
    if grant_type != GRANT_TYPE:
        if grant_type is None:
            raise InvalidRequest(DenialReason.NO_GRANT_TYPE)
        raise UnsupportedGrantType(DenialReason.UNSUPPORTED_GRANT_TYPE)
    if not _FIELDS.issuperset(fields):
        raise InvalidRequest(DenialReason.UNKNOWN_PARAMETER)
    if fields.get("subject_token_type") not in _SUBJECT_TYPES:
        raise InvalidRequest(DenialReason.SUBJECT_TOKEN_TYPE)
    if fields.get("requested_token_type", ACCESS_TOKEN_TYPE) != ACCESS_TOKEN_TYPE:
        raise InvalidRequest(DenialReason.REQUESTED_TOKEN_TYPE)
    if "subject_token" not in fields:
        raise InvalidRequest(DenialReason.NO_SUBJECT_TOKEN)
    rejected = fields.get("rejected_token_sha256")
    if rejected is not None and _SHA256.fullmatch(rejected) is None:
        raise InvalidRequest(DenialReason.REJECTED_TOKEN_SHA256)
    return ExchangeRequest(
        fields["subject_token"],
        fields.get("audience"),
        _min_ttl(fields.get("min_ttl", "0")),
        rejected,
        _scopes(fields.get("missing_scope"), DenialReason.MISSING_SCOPE),
        _audience(fields.get("target_audience")),
        _scopes(fields.get("scope"), DenialReason.SCOPE),
    )


def _scopes(text: str | None, malformed: DenialReason) -> tuple[str, ...]:
    if text is None:
        return ()
    if _SCOPE.fullmatch(text) is None:
        raise InvalidRequest(malformed)
    return tuple(dict.fromkeys(text.split(" ")))


def _audience(text: str | None) -> str | None:
    if text is not None and _AUDIENCE.fullmatch(text) is None:
        raise InvalidRequest(DenialReason.TARGET_AUDIENCE)
    return text


def _min_ttl(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 3):
        raise InvalidRequest(DenialReason.MIN_TTL)
    if int(text) > _MAX_MIN_TTL_SECONDS:
        raise InvalidRequest(DenialReason.MIN_TTL)
    return int(text)
