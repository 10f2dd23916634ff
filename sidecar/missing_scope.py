"""Which scopes an API's answer says are missing, of those that the user may be asked for. Pure."""

import re
from collections.abc import Sequence
from typing import Final

from chassis.http1.request import Headers
from chassis.strict_json import InvalidJson, parse_object
from sidecar.bearer_challenge import challenged_scope
from sidecar.missing_scope_rule import MissingScopeRule, ScopeHeaders, ScopeMembers

FORBIDDEN: Final = 403
_SEPARATOR: Final = re.compile("[ ,]+")


def missing_scope(
    rule: MissingScopeRule,
    status: int,
    headers: Headers,
    body: bytes | None,
    granted: Sequence[str],
) -> str | None:
    """What to ask the user for, with spaces between; None where the answer means something else.

    `body` is None where it was not read. `granted` are the scopes that the token is known to have.
    """
    named = _named(rule, status, headers, body)
    if rule.any_of:
        # The operator's order decides which of several ways is offered.
        return next((one for one in rule.askable if one in named and one not in granted), None)
    return " ".join(named) if named and set(named) <= set(rule.askable) else None


def _named(
    rule: MissingScopeRule, status: int, headers: Headers, body: bytes | None
) -> tuple[str, ...]:
    if status == FORBIDDEN:
        if scope := challenged_scope(headers.get_all("www-authenticate")):
            return tuple(dict.fromkeys(scope.split(" ")))
        if rule.headers is not None:
            return _of_headers(rule.headers, headers)
    if rule.members is not None and status == rule.members.status and body is not None:
        return _of_members(rule.members, body)
    return ()


def _of_headers(names: ScopeHeaders, headers: Headers) -> tuple[str, ...]:
    """A 403 has other reasons too: only a token without any accepted scope lacks one."""
    accepted, granted = headers.get(names.accepted), headers.get(names.granted)
    if accepted is None or granted is None:
        return ()
    wanted = _split(accepted)
    return wanted if set(wanted).isdisjoint(_split(granted)) else ()


def _of_members(names: ScopeMembers, body: bytes) -> tuple[str, ...]:
    if names.value.encode() not in body:
        return ()
    try:
        members = parse_object(body)
    except InvalidJson:
        return ()
    scopes = members.get(names.scopes)
    if members.get(names.error) != names.value or not isinstance(scopes, str):
        return ()
    return _split(scopes)


def _split(scopes: str) -> tuple[str, ...]:
    return tuple(one for one in _SEPARATOR.split(scopes) if one)
