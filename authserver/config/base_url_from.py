"""Base URLs that depend on the account: which member of a token answer is believed, and when.

A pattern's `*` is one whole label. A host that does not match is never called.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from chassis.config_types import Model, matches_pattern

MAX_HOST: Final = 253

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# The last label begins with a letter: everything else can be read as an IPv4 address.
_LAST: Final = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PATTERN: Final = re.compile(rf"(?:(?:{_LABEL}|\*)\.)*{_LABEL}\.{_LAST}|{_LAST}", re.ASCII)
HOST: Final = re.compile(rf"(?:{_LABEL}\.)*{_LAST}", re.ASCII)
_ORIGIN: Final = re.compile(r"https://([a-z0-9.-]{1,253})(?::443)?/?", re.ASCII | re.IGNORECASE)
SEGMENT: Final = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()+,=:@-]+"
PATH: Final = re.compile(rf"(?:/{SEGMENT})*", re.ASCII)
_MEMBER: Final = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)

TokenMember = Annotated[str, matches_pattern(_MEMBER, "a member's name such as instance_url")]
HostPattern = Annotated[
    str,
    Field(max_length=MAX_HOST),
    matches_pattern(
        _PATTERN,
        "a host name in lower case such as *.my.example.com, where * is one whole label and"
        " neither of the last two: no scheme, port, path or IP address",
    ),
]
BasePath = Annotated[
    str,
    Field(max_length=256),
    matches_pattern(PATH, "a path such as /services/data, without escapes or a final slash"),
]


def _once_each(patterns: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(patterns)) != len(patterns):
        raise ValueError("a pattern stands here twice")
    return patterns


class BaseUrlFrom(Model):
    """`member` of the token answer, where its host is one of `hosts`, with `path` behind it."""

    member: TokenMember
    hosts: Annotated[
        tuple[HostPattern, ...], Field(min_length=1, max_length=32), AfterValidator(_once_each)
    ]
    path: BasePath = ""

    def base_url(self, origins: Iterable[tuple[str, str]]) -> str | None:
        """The base URL of an account whose token answer said `origins`, as (member, origin).

        None where it said none, or one that `hosts` do not have, or no longer.
        """
        origin = dict(origins).get(self.member)
        if origin is None or not is_among(origin, self.hosts):
            return None
        return f"{origin}{self.path}"


def origin_of(value: object) -> str | None:
    """The canonical `https://HOST` of a token answer's value; None for everything else.

    A final slash and the default port are left off, and capitals are made small. Nothing else is
    mended: user information, other ports, paths, queries, IP addresses, a dot at the end, and
    everything beyond ASCII make it none.
    """
    match = _ORIGIN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    host = match[1].lower()
    return f"https://{host}" if HOST.fullmatch(host) else None


def is_among(origin: str, patterns: Iterable[str]) -> bool:
    """Whether the host of a canonical origin matches one of the patterns, label by label."""
    labels = origin.removeprefix("https://").split(".")
    return any(_matches(labels, pattern.split(".")) for pattern in patterns)


def _matches(labels: list[str], pattern: list[str]) -> bool:
    return len(labels) == len(pattern) and all(
        wanted in ("*", label) for label, wanted in zip(labels, pattern, strict=True)
    )
