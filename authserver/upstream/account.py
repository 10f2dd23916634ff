"""By what name people know an account, for our pages only: never an identity, never in a token."""

from collections.abc import Mapping
from typing import Any, Final

# The name to sign in with comes first: it tells two accounts of one person apart.
_MEMBERS: Final = ("preferred_username", "login", "email", "upn", "name")
_MAX_LENGTH: Final = 128


def account_name(claims: Mapping[str, Any]) -> str:
    """The name in an ID token's claims or a userinfo answer; empty where there is none."""
    for member in _MEMBERS:
        value = claims.get(member)
        if isinstance(value, str) and 0 < len(value) <= _MAX_LENGTH and value.isprintable():
            return value
    return ""
