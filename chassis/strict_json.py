"""JSON objects from strangers (RFC 8259), read in one way only.

Python's reader keeps the last of two equal members, takes NaN and accepts deep nesting; each of
those has been an attack.
"""

import json
from itertools import chain
from typing import Any, Final

# What Python's own parser accepts differs from version to version.
MAX_DEPTH: Final = 64
_NESTED: Final = frozenset((dict, list))


class InvalidJson(ValueError):
    """The text is not an object that we accept; the message is a constant."""


def parse_object(text: bytes | str) -> dict[str, Any]:
    """A JSON object without duplicate members, NaN or infinities, at most MAX_DEPTH levels deep.

    Bytes must be UTF-8; a byte order mark before the object is ignored. Raises InvalidJson.
    """
    try:
        # Python's own codec for this, `utf-8-sig`, is several times as slow.
        whole = text if isinstance(text, str) else text.decode().removeprefix("\ufeff")
        parsed = _DECODER.decode(whole)
    except (ValueError, RecursionError):
        raise InvalidJson("not a JSON object that we accept") from None
    if not isinstance(parsed, dict):
        raise InvalidJson("not a JSON object")
    if _max_levels(text) > MAX_DEPTH and _depth(parsed) > MAX_DEPTH:
        raise InvalidJson("nested too deep")
    return parsed


def _max_levels(text: bytes | str) -> int:
    """As many levels as there can be at most."""
    if isinstance(text, str):
        return text.count("{") + text.count("[")
    return text.count(b"{") + text.count(b"[")


def _depth(parsed: dict[str, Any]) -> int:
    depth = 0
    level: list[Any] = [parsed]
    while level:
        depth += 1
        parts = chain.from_iterable(one.values() if type(one) is dict else one for one in level)
        level = [part for part in parts if type(part) in _NESTED]
    return depth


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidJson("a member appears twice")
    return members


def _no_constant(name: str) -> Any:
    raise InvalidJson(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
