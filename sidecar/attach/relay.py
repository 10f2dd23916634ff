"""An API's answer on its way back: searched for the token, its links in local form, framed anew."""

from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from typing import Final, NamedTuple

from chassis.http1.continuation import AnyResponse
from chassis.http1.errors import Unfinished
from chassis.http1.no_response import NoResponse
from chassis.http1.request import Headers
from chassis.http1.response import Response, ResponseHead, StreamResponse
from chassis.http1.streamed_response import StreamedResponse
from chassis.logs import Log
from sidecar.attach.call import PreparedCall, RelayedHead
from sidecar.attach.fields import Fields, relayed_fields
from sidecar.attach.links import JsonLinks
from sidecar.attach.token_search import TokenFound
from sidecar.errors import BAD_GATEWAY, ApiError

_log = Log("attach")

MOST_GATHERED: Final = 64 * 1024  # a body of a known length up to here is judged whole
_DIGESTS: Final = ("content-digest", "content-md5", "digest", "repr-digest")
_LINKING: Final = frozenset({"location", "content-location", "link"})
ACTION_HEADER: Final = "X-Tokenward-Action"


class Begun(NamedTuple):
    """What was read of a body to look into it, and whether that is all."""

    data: bytes
    ended: bool

    def __repr__(self) -> str:
        return "<Begun>"


class Relay:
    """Makes responses of an API's answers; `piece_seconds` is how long a piece may take.

    `on_token` is called where an answer that holds the token is cut off in the middle.
    """

    def __init__(self, piece_seconds: float, on_token: Callable[[PreparedCall], None]) -> None:
        self._piece_seconds, self._on_token = piece_seconds, on_token

    async def begin(self, answer: StreamedResponse) -> Begun:
        """Read a body, but no more than is judged whole. Raises NoResponse."""
        pieces: list[bytes] = []
        size = 0
        while size <= MOST_GATHERED:
            piece = await answer.next(self._piece_seconds)
            if not piece:
                return Begun(b"".join(pieces), ended=True)
            pieces.append(piece)
            size += len(piece)
        return Begun(b"".join(pieces), ended=False)

    async def response(
        self, call: PreparedCall, answer: StreamedResponse, method: str, begun: Begun | None = None
    ) -> AnyResponse | ApiError:
        """The response to pass on. Raises TokenFound and NoResponse, both before its head is out.

        A refused 401 is marked: its caller may try again, and our challenge is not the API's.
        `begun` is what of its body was read before.
        """
        response = self.at_once(call, answer, method, begun)
        if response is None:
            relayed = _relayed_head(call, answer, method)
            if isinstance(relayed, ApiError):
                return relayed
            body = await answer.read(MOST_GATHERED, self._piece_seconds)
            response = _whole(call, relayed, body)
        return response

    def at_once(
        self, call: PreparedCall, answer: StreamedResponse, method: str, begun: Begun | None = None
    ) -> AnyResponse | ApiError | None:
        """The same without waiting; None where a short body has to arrive first."""
        relayed = _relayed_head(call, answer, method)
        if isinstance(relayed, ApiError):
            return relayed
        if relayed.bodiless:
            return StreamResponse(relayed.head, _nothing(), length=answer.length)
        read = b"" if begun is None else begun.data
        if begun is not None and begun.ended:
            return _whole(call, relayed, read)
        if answer.whole:
            return _whole(call, relayed, read + answer.take())
        if begun is None and answer.length is not None and answer.length <= MOST_GATHERED:
            return None
        body = _RelayedBody(call, answer, relayed.links, self._piece_seconds, self._on_token, read)
        length = answer.length if relayed.links is None else None
        return StreamResponse(relayed.head, body, length=length)


def _relayed_head(
    call: PreparedCall, answer: StreamedResponse, method: str
) -> RelayedHead | ApiError:
    """The head to pass on, the same for an answer that repeats its head. Raises TokenFound."""
    relayed = call.relayed
    if relayed is None or relayed.headers is not answer.headers or relayed.status != answer.status:
        written = _head(call, answer, method)
        if isinstance(written, ApiError):
            return written
        relayed = call.relayed = written
    return relayed


def _head(call: PreparedCall, answer: StreamedResponse, method: str) -> RelayedHead | ApiError:
    """The head to pass on. Raises TokenFound."""
    if call.search is not None:
        call.search.check_fields(answer.headers)
    bodiless = method == "HEAD" or answer.status in (204, 304)
    encoded = (answer.headers.get("content-encoding") or "identity").lower() != "identity"
    if call.search is not None and encoded and not bodiless:
        return BAD_GATEWAY.with_reason("encoded_answer")
    links = None if bodiless or encoded else _json_links(call, answer.headers)
    try:
        head = ResponseHead(answer.status, _fields(call, answer, rewritten=links is not None))
    except ValueError:
        return BAD_GATEWAY.with_reason("answer_fields")
    return RelayedHead(answer.status, answer.headers, head, bodiless, links)


class _RelayedBody:
    """The body of an answer under way; closed, it gives up the answer, read or not."""

    def __init__(
        self,
        call: PreparedCall,
        answer: StreamedResponse,
        links: JsonLinks | None,
        piece_seconds: float,
        on_token: Callable[[PreparedCall], None],
        read: bytes,
    ) -> None:
        self._call, self._answer, self._read = call, answer, read
        self._piece_seconds, self._on_token = piece_seconds, on_token
        self._filters = [maker.stream() for maker in (call.search, links) if maker is not None]
        self._ended = False

    def __aiter__(self) -> "_RelayedBody":
        return self

    async def __anext__(self) -> bytes:
        """Some bytes, or none where all are held back. Raises Unfinished."""
        if self._ended:
            raise StopAsyncIteration
        try:
            piece, self._read = self._read, b""
            piece = piece or await self._answer.next(self._piece_seconds)
            return self._filtered(piece) if piece else self._rest()
        except TokenFound:
            self._on_token(self._call)
            raise Unfinished from None
        except NoResponse as broken:
            _log.info("answer_broken_off", api=self._call.api.name, reason=type(broken).__name__)
            raise Unfinished from None

    async def aclose(self) -> None:
        self._answer.close()

    def _filtered(self, piece: bytes) -> bytes:
        for each in self._filters:
            piece = each.feed(piece)
        return piece

    def _rest(self) -> bytes:
        """What the filters held back: the answer is whole."""
        self._ended = True
        rest = b""
        for each in self._filters:
            rest = each.feed(rest) + each.end()
        return rest


def _whole(call: PreparedCall, relayed: RelayedHead, body: bytes) -> Response:
    """Raises TokenFound."""
    if call.search is not None:
        call.search.check(body)
    if relayed.links is not None:
        body = relayed.links.rewritten(body)
    return Response(relayed.head, body)


def _json_links(call: PreparedCall, headers: Headers) -> JsonLinks | None:
    """What rewrites the body, where it is JSON of an API whose preset names members."""
    if call.json_links is None or "content-range" in headers:
        return None
    return call.json_links if _is_json(headers.get("content-type") or "") else None


@lru_cache(maxsize=64)
def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


def _fields(call: PreparedCall, answer: StreamedResponse, *, rewritten: bool) -> Fields:
    refused = answer.status == 401
    dropped = (*(_DIGESTS if rewritten else ()), *(("www-authenticate",) if refused else ()))
    fields = relayed_fields(answer.headers, dropped)
    if not _LINKING.isdisjoint(answer.headers.names):
        fields = [(name, _in_local_form(call, name, value)) for name, value in fields]
    if refused:
        fields.append((ACTION_HEADER, "retry"))
    return fields


def _in_local_form(call: PreparedCall, name: str, value: str) -> str:
    if name == "link":
        return call.links.link_field(value, call.api)
    return call.links.location(value, call.api) if name in _LINKING else value


async def _nothing() -> AsyncIterator[bytes]:
    pieces: tuple[bytes, ...] = ()
    for piece in pieces:
        yield piece
