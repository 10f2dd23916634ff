"""Whose JWT it was, as the authserver confirmed it in an exchange answer (contracts section 3)."""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

_WORD: Final = re.compile(r"[\x21-\x7e]{1,2048}", re.ASCII)
_HANDLE: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)


class InvalidIdentity(ValueError):
    """A member of the answer is not of its form."""


class Identity(NamedTuple):
    """`sub` and `client_id` of the JWT, and the handles by which its end is announced.

    `session` and `connection` are None where the authserver sent none.
    """

    sub: str
    client_id: str
    session: str | None = None
    connection: str | None = None

    def __repr__(self) -> str:
        """Without the user: what a future or a traceback prints may reach a log."""
        return "<Identity>"


def read_identity(members: Mapping[str, Any]) -> Identity | None:
    """The identity in an answer; None where it names none. Raises InvalidIdentity."""
    sub, client_id = members.get("sub"), members.get("client_id")
    handles = [members.get("session"), members.get("connection")]
    if any(handle is not None and not _matches(_HANDLE, handle) for handle in handles):
        raise InvalidIdentity
    if sub is None and client_id is None:
        return None
    if not _matches(_WORD, sub) or not _matches(_WORD, client_id):
        raise InvalidIdentity
    return Identity(str(sub), str(client_id), *handles)


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
