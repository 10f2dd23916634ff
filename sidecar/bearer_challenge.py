"""Reads the challenge by which a server says that a token lacks a scope (RFC 6750 section 3)."""

import re
from collections.abc import Sequence
from typing import Final

from sidecar.scopes import is_scope

_MOST: Final = 8 * 1024
_BEARER: Final = re.compile(r"(?:^|,)[ \t]*bearer[ \t]+(?=[a-z_]+[ \t]*=)", re.IGNORECASE)
# RFC 9110 section 11.2; some servers leave the quotes of `error` out.
_PARAMETER: Final = re.compile(
    r'([A-Za-z0-9_.~-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))[ \t]*(?:,[ \t]*|$)'
)
_ERROR: Final = "insufficient_scope"


def challenge_parameters(values: Sequence[str]) -> dict[str, str]:
    """The parameters of the first Bearer challenge among the values of `WWW-Authenticate`."""
    for value in values:
        begin = _BEARER.search(value) if len(value) <= _MOST else None
        if begin is None:
            continue
        parameters: dict[str, str] = {}
        at = begin.end()
        while match := _PARAMETER.match(value, at):
            parameters.setdefault(match[1].lower(), match[3] if match[2] is None else match[2])
            at = match.end()
        return parameters
    return {}


def challenged_scope(values: Sequence[str]) -> str | None:
    """The scopes that an `insufficient_scope` challenge names; None where there is none."""
    parameters = challenge_parameters(values)
    scope = parameters.get("scope")
    return scope if parameters.get("error") == _ERROR and is_scope(scope) else None
