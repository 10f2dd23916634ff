"""Strict readers for what strangers send: JSON, forms, queries and cookies.

Libraries keep the last of two duplicates, take NaN, strip odd white space and accept unbounded
nesting; each of those has been an attack. Here they are refused. Raises Malformed only.
"""

import re
from collections.abc import Container, Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from chassis.strict_json import InvalidJson, parse_object

MAX_FIELDS: Final = 100
# Between the values of a repeated parameter. A NUL is refused in every value.
SEPARATOR: Final = "\0"

_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Malformed(ValueError):
    """The input is not of its form; the text is a constant that may be shown to the sender."""


def json_object(text: bytes | str) -> dict[str, Any]:
    """A JSON object as `chassis.strict_json` accepts it."""
    try:
        return parse_object(text)
    except InvalidJson as invalid:
        raise Malformed(str(invalid)) from None


def form_fields(body: bytes, *, repeatable: Container[str] = ()) -> dict[str, str]:
    """The fields of an application/x-www-form-urlencoded body, each exactly once (RFC 6749 3.1).

    `repeatable` as in `query_fields`.
    """
    raw = body.decode("latin-1")  # whatever is not ASCII is refused there
    return query_fields(raw, repeatable=repeatable)


def query_fields(raw: str, *, repeatable: Container[str] = ()) -> dict[str, str]:
    """The parameters of a raw query string, each exactly once; empty values count as absent.

    A parameter in `repeatable` may come several times; its values are joined with SEPARATOR,
    which none of them can hold.
    """
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
        if name in fields and name not in repeatable:
            raise Malformed("a parameter appears twice")
        fields[name] = f"{fields[name]}{SEPARATOR}{value}" if fields.get(name) else value
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
            key, separator, value = part.strip(" ").partition("=")
            if separator and key == name:
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
