"""Bodies in chunks (RFC 9112 section 7.1). Imported when the first one arrives.

They are not read by llhttp. httptools does not show chunk extensions, which may be malformed or
endless, and it takes the body of a request with `Upgrade` for the next request.
"""

import re
from collections.abc import Callable
from typing import Final

from chassis.http1.errors import Malformed

_LONGEST_CHUNK_LINE: Final = 256
_LONGEST_EXTENSIONS: Final = 1024  # of one body
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_CHUNK_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,8})((?:;%b(?:=(?:%b|%b))?)*)" % (_TOKEN, _TOKEN, _QUOTED)
)
_BEGUN_CHUNK_LINE: Final = re.compile(rb"(?:[0-9A-Fa-f]{1,8}(?:;[\t -~\x80-\xff]*)?\r?)?")


class ChunkReader:
    """Finds the end of a body in chunks; `feed` as in `BodyReader`. Raises Malformed.

    Extensions are ignored where they are well-formed and short. Trailers are refused: nobody
    here needs them, and a reader that forgets them sees a request of its own.
    """

    __slots__ = ("_extensions", "_kept", "_left", "_step", "done")

    def __init__(self) -> None:
        self._kept = b""
        self._left = 0
        self._extensions = 0
        self._step: Callable[[bytes, int], int] = self._size
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        data, at, pieces = self._kept + data, 0, []
        while at < len(data) and not self.done:
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                self._left -= len(piece)
                at += len(piece)
                continue
            after = self._step(data, at)
            if after == at:
                break
            at = after
        self._kept, rest = (b"", data[at:]) if self.done else (data[at:], b"")
        return b"".join(pieces), rest

    def _size(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n", at, at + _LONGEST_CHUNK_LINE)
        if end < 0:
            tail = data[at : at + _LONGEST_CHUNK_LINE]
            if len(tail) == _LONGEST_CHUNK_LINE or not _BEGUN_CHUNK_LINE.fullmatch(tail):
                raise Malformed("chunk_size")
            return at
        line = _CHUNK_LINE.fullmatch(data, at, end)
        if line is None:
            raise Malformed("chunk_size")
        self._extensions += len(line[2])
        if self._extensions > _LONGEST_EXTENSIONS:
            raise Malformed("chunk_extensions")
        self._left = int(line[1], 16)
        self._step = self._data_end if self._left else self._body_end
        return end + 2

    def _data_end(self, data: bytes, at: int) -> int:
        after = self._line_end(data, at, "chunk_end")
        if after != at:
            self._step = self._size
        return after

    def _body_end(self, data: bytes, at: int) -> int:
        after = self._line_end(data, at, "trailers")
        self.done = after != at
        return after

    def _line_end(self, data: bytes, at: int, reason: str) -> int:
        end = data[at : at + 2]
        if end == b"\r\n":
            return at + 2
        if end == b"\r":
            return at
        raise Malformed(reason)
