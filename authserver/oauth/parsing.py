"""Strict readers for what strangers send: JSON, forms, queries and cookies.

Libraries keep the last of two duplicates, take NaN, strip odd white space and accept unbounded
nesting; each of those has been an attack. Here they are refused. Raises Malformed only.
"""

import json
import re
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, Final
from urllib.parse import unquote_to_bytes

MAX_FIELDS: Final = 100
# What Python's own parser puts up with differs from version to version.
MAX_DEPTH: Final = 64

_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Malformed(ValueError):
    """The input is not of its form; the text is a constant that may be shown to the sender."""


def json_object(text: bytes | str) -> dict[str, Any]:
    """A JSON object without duplicate members, NaN or infinities, at most MAX_DEPTH deep."""
    try:
        found = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Malformed("not a JSON object that we accept") from None
    if not isinstance(found, dict):
        raise Malformed("not a JSON object")
    if _openings(text) > MAX_DEPTH and _depth(found) > MAX_DEPTH:
        raise Malformed("nested too deep")
    return found


def form_fields(body: bytes) -> dict[str, str]:
    """The fields of an application/x-www-form-urlencoded body, each exactly once (RFC 6749 3.1)."""
    return query_fields(body.decode("latin-1"))  # whatever is not ASCII is refused there


def query_fields(raw: str) -> dict[str, str]:
    """The parameters of a raw query string, each exactly once; empty values count as absent."""
    if not raw.isascii() or "\0" in raw:
        raise Malformed("not ASCII, or a NUL character")
    escapes = "%" in raw or "+" in raw
    if escapes and _PERCENT.search(raw):
        raise Malformed("a percent sign that escapes nothing")
    pairs = raw.split("&")
    if len(pairs) > MAX_FIELDS:
        raise Malformed("too many parameters")
    fields: dict[str, str] = {}
    for pair in pairs:
        if not pair:
            continue
        name, _, value = pair.partition("=")
        if escapes:
            name, value = _unescaped(name), _unescaped(value)
        if name in fields:
            raise Malformed("a parameter appears twice")
        fields[name] = value
    return {name: value for name, value in fields.items() if value}


def _unescaped(text: str) -> str:
    if "+" in text:
        text = text.replace("+", " ")
    if "%" in text:
        try:
            text = unquote_to_bytes(text).decode()
        except UnicodeDecodeError:
            raise Malformed("not UTF-8") from None
    if "\0" in text:
        raise Malformed("a NUL character")
    return text


def only_cookie(headers: Iterable[str], name: str) -> str | None:
    """The value of the cookie `name` if it appears exactly once, by its exact ASCII name.

    aiohttp's parser strips exotic spaces in front of a name and lets the last duplicate win, with
    which a neighbouring site could plant a `__Host-` cookie; so the raw header is read here.
    """
    values = []
    for header in headers:
        for part in header.split(";"):
            found, separator, value = part.strip(" ").partition("=")
            if separator and found == name:
                values.append(value)
    return values[0] if len(values) == 1 and values[0].isascii() else None


def whole_number(claims: Mapping[str, Any], name: str) -> int:
    """An integer claim of a sane size; booleans, floats and numbers in quotes are refused."""
    value = claims.get(name)
    if type(value) is not int or not 0 <= value < 2**53:
        raise Malformed(f"{name} is not a sane integer")
    return value


def short_text(claims: Mapping[str, Any], name: str, longest: int = 255) -> str:
    """A text claim of 1 to `longest` printable characters."""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
        raise Malformed(f"{name} is not a short text")
    return value


def _openings(text: bytes | str) -> int:
    """As many levels as there can be at most."""
    if isinstance(text, str):
        return text.count("{") + text.count("[")
    return text.count(b"{") + text.count(b"[")


def _depth(found: dict[str, Any]) -> int:
    depth = 0
    level: list[Any] = [found]
    while level:
        depth += 1
        parts = chain.from_iterable(one.values() if type(one) is dict else one for one in level)
        level = [part for part in parts if isinstance(part, dict | list)]
    return depth


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("a member appears twice")
    return found


def _no_constant(name: str) -> Any:
    raise Malformed(f"{name} is not JSON")
