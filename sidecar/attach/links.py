"""Links of an API's answers in their local form, so that paging comes back through the sidecar.

A target that is under no base URL of the upstream stays as it is.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from sidecar.apis import Api
from sidecar.attach.path_policy import problem_of, slashes_decoded

_TARGET: Final = re.compile(r'"(?:[^"\\]|\\.)*"|<([^<>]*)>')  # RFC 8288 section 3
_ABSOLUTE: Final = re.compile(r"(https?)://([^/?#\\@\s]+)(.*)", re.IGNORECASE | re.DOTALL)
_LONGEST_NAME: Final = 64
_LONGEST_LINK: Final = 2048
_SPACE: Final = rb"[ \t\r\n]{0,32}"
_NAME: Final = rb'"([^"\\\x00-\x1f]{1,64})"'
_KEY: Final = re.compile(_NAME + _SPACE + b":" + _SPACE + b"$")
# What may be the beginning of a member with a link, at the end of a piece.
_BEGUN: Final = re.compile(
    rb'"(?:[A-Za-z0-9_@.$-]{0,64}|[A-Za-z0-9_@.$-]{1,64}"' + _SPACE
    + rb"(?::" + _SPACE + rb'(?:"(?:h(?:[^"\\]|\\/?){0,2048})?)?)?)'
)  # fmt: skip


class Links:
    """Rewrites links of one upstream; `origin` is the address that the caller used."""

    def __init__(self, origin: str, upstream: str, apis: Sequence[Api]) -> None:
        self._root = f"{origin}/upstream/{upstream}"
        self._bases = [(api, _base(api.base_url)) for api in apis]

    def local(self, link: str) -> str | None:
        """The local form of an absolute link; None where it is under no base URL."""
        absolute = _absolute(link)
        if absolute is None:
            return None
        under = [
            (api, absolute.rest[len(base.path) :])
            for api, base in self._bases
            if base.origin == absolute.origin and _is_under(absolute.rest, base.path)
        ]
        if not under:
            return None
        # Several APIs may share a host: the one that allows the path, else any of ours refuses it.
        api, rest = next((one for one in under if _covers(*one)), under[0])
        return f"{self._root}{'' if api.default else f'/{api.name}'}{rest}"

    def location(self, target: str, api: Api) -> str:
        """A `Location` or `Content-Location` of this API (RFC 9110 section 10.2.2).

        A relative one that begins with a slash is meant below the API's host, not below ours.
        """
        absolute = target
        if target.startswith("//"):
            absolute = f"https:{target}"
        elif target.startswith("/"):
            absolute = _base(api.base_url).origin + target
        return self.local(absolute) or target

    def link_field(self, value: str, api: Api) -> str:
        """A `Link` field (RFC 8288) with its targets in local form."""

        def rewritten(match: re.Match[str]) -> str:
            return match[0] if match[1] is None else f"<{self.location(match[1], api)}>"

        return _TARGET.sub(rewritten, value)


class JsonLinks:
    """Rewrites the links of named members in a JSON text; only those bytes change."""

    def __init__(self, links: Links, members: Sequence[str], bases: Sequence[str]) -> None:
        self._local: Callable[[str], str | None] = links.local
        self._members = frozenset(name.encode() for name in members)
        self._begins = _beginnings(tuple(bases))

    def stream(self) -> "JsonLinkFilter":
        """A filter for a text that arrives in pieces."""
        return JsonLinkFilter(self)

    def rewritten(self, data: bytes, end: int | None = None) -> bytes:
        """The text up to `end` in local form. It may begin and end before any quote.

        What is behind `end` is looked at only to see where a link ends.
        """
        pieces, done, end = [], 0, len(data) if end is None else end
        for match in self._begins.finditer(data):
            if match.start() >= end:
                break
            key = _KEY.search(data[max(0, match.start() - _LONGEST_NAME - 80) : match.start()])
            if key is None or key[1] not in self._members:
                continue
            link = match[1].replace(b"\\/", b"/").decode("utf-8", "replace")
            local = self._local(link)
            if local is not None:
                pieces += [data[done : match.start(1)], _escaped(local, match[1])]
                done = match.end(1)
        return b"".join((*pieces, data[done:end])) if pieces else data[:end]


class JsonLinkFilter:
    """Rewrites a text as it arrives; held back is the end where a member with a link may begin."""

    def __init__(self, links: JsonLinks) -> None:
        self._links, self._held = links, b""

    def feed(self, piece: bytes) -> bytes:
        """What may go on of everything so far."""
        data = self._held + piece if self._held else piece
        cut = self._begun(data)
        self._held = data[cut:]
        return self._links.rewritten(data, cut)

    def end(self) -> bytes:
        """What was held back; the text is whole."""
        held, self._held = self._held, b""
        return self._links.rewritten(held)

    @staticmethod
    def _begun(data: bytes) -> int:
        """Where a member begins that the end of the data may cut off: at most three quotes back."""
        at, cut = len(data), len(data)
        for _ in range(3):
            at = data.rfind(b'"', max(0, len(data) - _LONGEST_LINK - _LONGEST_NAME - 80), at)
            if at < 0:
                break
            if _BEGUN.fullmatch(data, at):
                cut = at
        return cut


class _Absolute(NamedTuple):
    """An absolute link: its origin, and everything behind that as it is spelt."""

    origin: str
    rest: str


def _absolute(link: str) -> _Absolute | None:
    """None for what is none. `http` without a port counts as the same host: we call it by TLS."""
    match = _ABSOLUTE.fullmatch(link)
    if match is None:
        return None
    port = ":443" if match[1].lower() == "https" else ":80"
    return _Absolute(f"https://{match[2].lower().removesuffix(port)}", match[3])


class _Base(NamedTuple):
    origin: str
    path: str


@lru_cache(maxsize=64)
def _base(base_url: str) -> _Base:
    parts = urlsplit(base_url)
    return _Base(f"https://{parts.netloc.removesuffix(':443')}", parts.path)


def _is_under(rest: str, base_path: str) -> bool:
    return rest.startswith(base_path) and rest[len(base_path) : len(base_path) + 1] in (
        "", "/", "?", "#", "{",
    )  # fmt: skip


def _covers(api: Api, rest: str) -> bool:
    path = re.split(r"[?#{]", rest, maxsplit=1)[0]
    return problem_of(path) is None and api.covers(path) and api.covers(slashes_decoded(path))


@lru_cache(maxsize=64)
def _beginnings(bases: tuple[str, ...]) -> re.Pattern[bytes]:
    """A string that begins with a base URL, up to its end; `/` may be escaped in JSON."""
    hosts = (base.removeprefix("https:") for base in bases)
    spelt = "|".join(re.escape(host).replace("/", r"\\?/") for host in hosts) or "(?!)"
    end_of_base = r'(?=[/?#{"]|\\/)'
    link = rf'"(https?:(?:{spelt}){end_of_base}(?:[^"\\]|\\/){{0,{_LONGEST_LINK}}})'
    return re.compile(link.encode())


def _escaped(local: str, original: bytes) -> bytes:
    text = local.encode()
    return text.replace(b"/", b"\\/") if b"\\/" in original else text
