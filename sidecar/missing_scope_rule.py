"""How an API says that a token lacks a scope, as an exchange answer tells it."""

from typing import Any, Final, NamedTuple

from sidecar.scopes import is_scope

_MOST_ASKABLE: Final = 256


class ScopeHeaders(NamedTuple):
    """Headers of a 403, in lower case: which scopes are enough, and which the token has."""

    accepted: str
    granted: str


class ScopeMembers(NamedTuple):
    """Members of a JSON answer with `status`: where `error` is `value`, `scopes` names them."""

    status: int
    error: str
    value: str
    scopes: str


class MissingScopeRule(NamedTuple):
    """Beside a Bearer challenge. `askable` are the scopes that the user may be asked for.

    `any_of`: of the scopes that the API names, one is enough.
    """

    askable: tuple[str, ...]
    any_of: bool
    headers: ScopeHeaders | None = None
    members: ScopeMembers | None = None


def read_rule(value: object) -> MissingScopeRule | None:
    """The rule of an API; None where the answer has none. Raises ValueError."""
    if value is None:
        return None
    members = _members(value)
    askable, any_of = members.get("askable"), members.get("any_of")
    if not isinstance(askable, list) or not isinstance(any_of, bool):
        raise ValueError("missing_scope")
    if len(askable) > _MOST_ASKABLE or not all(is_scope(one) and " " not in one for one in askable):
        raise ValueError("askable")
    headers = members.get("headers")
    answered = members.get("members")
    return MissingScopeRule(
        tuple(askable),
        any_of,
        None if headers is None else _headers(_members(headers)),
        None if answered is None else _answered(_members(answered)),
    )


def _headers(members: dict[str, Any]) -> ScopeHeaders:
    return ScopeHeaders(_text(members, "accepted").lower(), _text(members, "granted").lower())


def _answered(members: dict[str, Any]) -> ScopeMembers:
    status = members.get("status")
    if type(status) is not int:
        raise ValueError("status")
    return ScopeMembers(
        status, _text(members, "error"), _text(members, "value"), _text(members, "scopes")
    )


def _members(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("missing_scope")
    return value


def _text(members: dict[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 64:
        raise ValueError(name)
    return value
