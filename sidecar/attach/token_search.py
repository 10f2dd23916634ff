"""Finds the attached token in an answer, while it streams also across the borders of its pieces.

A compressed or otherwise encoded answer cannot be searched; the caller refuses those.
"""

from urllib.parse import quote

from chassis.http1.request import Headers


class TokenFound(Exception):
    """The answer holds the token. What was let through before holds no whole one."""


class TokenSearch:
    """Looks for one token, in any of its usual spellings."""

    __slots__ = ("_bytes", "_texts")

    def __init__(self, access_token: str) -> None:
        # As it is, in JSON with escaped slashes, and in a URL.
        spellings = {access_token, access_token.replace("/", "\\/"), quote(access_token, safe="")}
        self._texts = tuple(spellings)
        self._bytes = tuple(spelling.encode() for spelling in spellings)

    def __repr__(self) -> str:
        """Without the token."""
        return "<TokenSearch>"

    def check_fields(self, headers: Headers) -> None:
        """Raises TokenFound where a header field holds the token."""
        values = "\n".join(value for _, value in headers.items())
        for text in self._texts:
            if text in values:
                raise TokenFound

    def check(self, body: bytes) -> None:
        """A whole body. Raises TokenFound where it holds the token."""
        for spelling in self._bytes:
            if spelling in body:
                raise TokenFound

    def stream(self) -> "TokenFilter":
        """A filter for a body that arrives in pieces."""
        return TokenFilter(self, self._bytes)


class TokenFilter:
    """Lets bytes through that cannot be part of the token.

    Held back is only the end of a piece that a spelling begins with.
    """

    __slots__ = ("_held", "_search", "_spellings")

    def __init__(self, search: TokenSearch, spellings: tuple[bytes, ...]) -> None:
        self._search, self._spellings, self._held = search, spellings, b""

    def __repr__(self) -> str:
        """Without the token."""
        return "<TokenFilter>"

    def feed(self, piece: bytes) -> bytes:
        """What may go on of everything so far. Raises TokenFound."""
        data = self._held + piece if self._held else piece
        self._search.check(data)
        cut = self._begun(data)
        self._held = data[cut:]
        return data[:cut] if self._held else data

    def end(self) -> bytes:
        """What was held back; the answer is whole."""
        held, self._held = self._held, b""
        return held

    def _begun(self, data: bytes) -> int:
        """Where a spelling begins that the end of the data cuts off; its length if none does."""
        earliest = len(data)
        for spelling in self._spellings:
            at = data.find(spelling[:1], max(0, len(data) - len(spelling) + 1))
            while at >= 0 and not spelling.startswith(data[at:]):
                at = data.find(spelling[:1], at + 1)
            if at >= 0:
                earliest = min(earliest, at)
        return earliest
