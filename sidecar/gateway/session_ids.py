"""Finds the ids of sessions: in a header, in a query, and in the older transport's first event.

Names in a query are compared as frameworks read them: decoded, without `_` and `-`, in any case.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_plus

from chassis.http1.errors import Malformed
from chassis.http1.request import Headers
from sidecar.gateway.session_bindings import MAX_ID_BYTES

HEADER: Final = "mcp-session-id"
MAX_FIRST_EVENT: Final = 16 * 1024

_ID: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)  # MCP: visible ASCII characters
_PARAMETER: Final = "sessionid"
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_EVENT_END: Final = re.compile(rb"(?>\r\n|\r|\n)(?>\r\n|\r|\n)")


def ids_of_request(headers: Headers, target: str) -> tuple[str, ...]:
    """Every id that a request names. Raises Malformed where one is sent twice or is no id."""
    sent = headers.get_all(HEADER)
    session_ids = [*sent, *_ids_of_query(target)]
    if len(sent) > 1 or not all(map(is_session_id, session_ids)):
        raise Malformed("session_id")
    return tuple(session_ids)


def is_session_id(text: str) -> bool:
    return len(text) <= MAX_ID_BYTES and _ID.fullmatch(text) is not None


def _ids_of_query(target: str) -> list[str]:
    query = target.partition("?")[2]
    session_ids = list(_parameters(query)) if query else []
    if len(session_ids) > 1:
        raise Malformed("session_id")  # two readers would choose different ones
    return session_ids


def _parameters(query: str) -> Iterator[str]:
    """Values of the parameters that name a session; some readers take `;` for a separator."""
    for pair in re.split("[&;]", query):
        name, _, value = pair.partition("=")
        if _folded(unquote_plus(name)) == _PARAMETER:
            yield unquote_plus(value)


def _folded(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


class FirstEvent:
    """Looks for an id in the first event of a stream: the older transport's `endpoint` event.

    It names the URL that the client posts to (MCP 2024-11-05, "HTTP with SSE").
    """

    def __init__(self) -> None:
        self._begun = b""
        self.done = False

    def feed(self, data: bytes) -> str | None:
        """Look at the next bytes of the stream. The id where they complete an event with one.

        Raises Malformed where the event's URL names a session in a way that we do not read.
        """
        self._begun += data
        end = _EVENT_END.search(self._begun)
        if end is None and len(self._begun) <= MAX_FIRST_EVENT:
            return None
        event, self._begun = self._begun, b""
        while end is not None and not _names_an_event(event[: end.start()]):
            event = event[end.end() :]  # comments come before it, to open the stream
            end = _EVENT_END.search(event)
            if end is None:
                self._begun = event
                return None
        self.done = True
        return None if end is None else _endpoint_id(event[: end.start()])


def _names_an_event(event: bytes) -> bool:
    return any(line[:1] not in (b"", b":") for line in _LINE_END.split(event))


def _endpoint_id(event: bytes) -> str | None:
    fields = [line.partition(b":") for line in _LINE_END.split(event.removeprefix(b"\xef\xbb\xbf"))]
    if not any(name == b"event" and value.strip() == b"endpoint" for name, _, value in fields):
        return None
    data = b"".join(value.removeprefix(b" ") for name, _, value in fields if name == b"data")
    session_ids = _ids_of_query(data.decode("latin-1").partition("#")[0])
    if any(not is_session_id(one) for one in session_ids):
        raise Malformed("session_id")
    return session_ids[0] if session_ids else None
