"""An API's answer on its way back: searched for the token, its links in local form, framed anew."""

from collections.abc import AsyncIterator, Callable
from typing import Final

from chassis.http1.client_connection import StreamedResponse
from chassis.http1.connection import AnyResponse
from chassis.http1.errors import Unfinished
from chassis.http1.no_response import NoResponse
from chassis.http1.response import Response, ResponseHead, StreamResponse
from chassis.logs import Log
from sidecar.attach.call import PreparedCall
from sidecar.attach.fields import Fields, relayed_fields
from sidecar.attach.links import JsonLinks
from sidecar.attach.token_search import TokenFound, TokenSearch
from sidecar.errors import BAD_GATEWAY, ApiError

_log = Log("attach")

MOST_GATHERED: Final = 64 * 1024  # a body of a known length up to here is judged whole
_MOST_READ: Final = 4 * 1024 * 1024  # more than what has arrived at once

_DIGESTS: Final = ("content-digest", "content-md5", "digest", "repr-digest")
_LOCATIONS: Final = ("location", "content-location")
ACTION_HEADER: Final = "X-Tokenward-Action"


class Relay:
    """Makes responses of an API's answers; `piece_seconds` is how long a piece may take.

    `on_token` is called where an answer that holds the token is cut off in the middle.
    """

    def __init__(self, piece_seconds: float, on_token: Callable[[PreparedCall], None]) -> None:
        self._piece_seconds, self._on_token = piece_seconds, on_token

    async def response(
        self, call: PreparedCall, answer: StreamedResponse, method: str
    ) -> AnyResponse | ApiError:
        """The response to pass on. Raises TokenFound and NoResponse, both before its head is out.

        A refused 401 is marked: its caller may try again, and our challenge is not the API's.
        """
        search = TokenSearch(call.access_token) if call.api.search_answers else None
        if search is not None:
            search.check_fields(answer.headers)
        bodiless = method == "HEAD" or answer.status in (204, 304)
        encoded = (answer.headers.get("content-encoding") or "identity").lower() != "identity"
        if search is not None and encoded and not bodiless:
            answer.close()
            return BAD_GATEWAY.with_reason("encoded_answer")
        rewriter = None if bodiless or encoded else _json_links(call, answer)
        try:
            head = ResponseHead(answer.status, _fields(call, answer, rewriter is not None))
        except ValueError:
            answer.close()
            return BAD_GATEWAY.with_reason("answer_fields")
        if bodiless:
            return StreamResponse(head, _nothing(), length=answer.length)
        if answer.whole or (answer.length is not None and answer.length <= MOST_GATHERED):
            body = await answer.read(_MOST_READ, self._piece_seconds)
            return Response(head, _judged(body, search, rewriter))
        length = answer.length if rewriter is None else None
        return StreamResponse(head, self._pieces(call, answer, search, rewriter), length=length)

    async def _pieces(
        self,
        call: PreparedCall,
        answer: StreamedResponse,
        search: TokenSearch | None,
        rewriter: JsonLinks | None,
    ) -> AsyncIterator[bytes]:
        steps = [step for step in (search, rewriter) if step is not None]
        try:
            while piece := await answer.next(self._piece_seconds):
                for step in steps:
                    piece = step.feed(piece)
                if piece:
                    yield piece
            rest = b""
            for step in steps:
                rest = step.feed(rest) + step.end()
            if rest:
                yield rest
        except TokenFound:
            self._on_token(call)
            raise Unfinished from None
        except NoResponse as broken:
            _log.info("answer_broken_off", api=call.api.name, reason=type(broken).__name__)
            raise Unfinished from None
        finally:
            answer.close()


def _judged(body: bytes, search: TokenSearch | None, rewriter: JsonLinks | None) -> bytes:
    """A whole body. Raises TokenFound."""
    if search is not None:
        search.feed(body)
    return body if rewriter is None else rewriter.whole(body)


def _json_links(call: PreparedCall, answer: StreamedResponse) -> JsonLinks | None:
    """What rewrites the body, where it is JSON of an API whose preset names members."""
    if not call.api.link_members or "content-range" in answer.headers:
        return None
    media_type = (answer.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        return None
    bases = [api.base_url for api in call.token.apis]
    return JsonLinks(call.links, call.api.link_members, bases)


def _fields(call: PreparedCall, answer: StreamedResponse, rewritten: bool) -> Fields:
    refused = answer.status == 401
    dropped = (*(_DIGESTS if rewritten else ()), *(("www-authenticate",) if refused else ()))
    fields = []
    for name, value in relayed_fields(answer.headers, dropped):
        if name in _LOCATIONS:
            value = call.links.location(value, call.api)
        elif name == "link":
            value = call.links.link_field(value, call.api)
        fields.append((name, value))
    if refused:
        fields.append((ACTION_HEADER, "retry"))
    return fields


async def _nothing() -> AsyncIterator[bytes]:
    pieces: tuple[bytes, ...] = ()
    for piece in pieces:
        yield piece
