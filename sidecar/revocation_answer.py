"""An answer of the revocation feed, each member of which was checked."""

import re
from collections.abc import Container
from typing import Any, Final, NamedTuple

from chassis.strict_json import InvalidJson, parse_object

_ID_AND_HANDLE: Final = re.compile(r"[A-Za-z0-9_-]{1,128} [A-Za-z0-9_-]{1,128}", re.ASCII)
_CURSOR: Final = re.compile(r"[\x21-\x7e]{1,512}", re.ASCII)


class InvalidRevocations(ValueError):
    """What answered is not the revocation feed; the text is a code."""


class RevocationAnswer(NamedTuple):
    """`ended` are pairs of an ending's id and the handle that it is about, without those known.

    `gap`: some are old, and others may be missing. `everything`: all that this workload holds is to
    be dropped, because the database was replaced or because too much has ended to name it.
    """

    ended: tuple[tuple[str, str], ...]
    cursor: str
    gap: bool
    everything: bool


def read_revocations(body: bytes, known: Container[str] = ()) -> RevocationAnswer:
    """Leaves out the ids that are `known`, and members that we do not know.

    Raises InvalidRevocations.
    """
    try:
        members = parse_object(body)
    except InvalidJson:
        raise InvalidRevocations("not_json") from None
    cursor, ended = members.get("cursor"), members.get("ended")
    if not isinstance(cursor, str) or _CURSOR.fullmatch(cursor) is None:
        raise InvalidRevocations("bad_cursor")
    if not isinstance(ended, list):
        raise InvalidRevocations("bad_ended")
    gap, everything, reset = (members.get(name, False) for name in ("gap", "everything", "reset"))
    if not all(isinstance(flag, bool) for flag in (gap, everything, reset)):
        raise InvalidRevocations("bad_flag")
    return RevocationAnswer(_new_pairs(ended, known), cursor, gap, everything or reset)


def _new_pairs(listed: list[Any], known: Container[str]) -> tuple[tuple[str, str], ...]:
    """Ids and handles. An answer repeats thousands that are known: those are left out first."""
    try:
        pairs = tuple([(one["id"], one["handle"]) for one in listed if one["id"] not in known])
        valid = all(map(_ID_AND_HANDLE.fullmatch, map(" ".join, pairs)))
    except (TypeError, KeyError):
        valid = False
    if not valid:
        raise InvalidRevocations("bad_ending")
    return pairs
