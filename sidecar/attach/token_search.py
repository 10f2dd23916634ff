"""Finds the attached token in an answer while it streams, also across the borders of its pieces.

A compressed or otherwise encoded answer cannot be searched; the caller refuses those.
"""

from urllib.parse import quote

from chassis.http1.request import Headers


class TokenFound(Exception):
    """The answer holds the token. What was let through before holds no whole one."""


class TokenSearch:
    """Lets bytes through that cannot be part of the token, in any of its usual spellings.

    Held back is only the end of a piece that a spelling begins with.
    """

    __slots__ = ("_held", "_spellings")

    def __init__(self, access_token: str) -> None:
        # As it is, in JSON with escaped slashes, and in a URL.
        spellings = {access_token, access_token.replace("/", "\\/"), quote(access_token, safe="")}
        self._spellings = tuple(spelling.encode() for spelling in spellings)
        self._held = b""

    def __repr__(self) -> str:
        """Without the token."""
        return "<TokenSearch>"

    def check_fields(self, headers: Headers) -> None:
        """Raises TokenFound where a header field holds the token."""
        for _, value in headers.items():
            raw = value.encode("latin-1", "replace")
            if any(spelling in raw for spelling in self._spellings):
                raise TokenFound

    def feed(self, piece: bytes) -> bytes:
        """What may go on of everything so far. Raises TokenFound."""
        data = self._held + piece if self._held else piece
        for spelling in self._spellings:
            if spelling in data:
                raise TokenFound
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
