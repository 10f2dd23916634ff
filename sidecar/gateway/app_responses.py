"""The app's responses for the client: whose session they give, and what of them is relayed."""

from collections.abc import Callable

from chassis.http1.continuation import AnyResponse
from chassis.http1.no_response import NoResponse
from chassis.http1.request import Request
from chassis.http1.response import Response, ResponseHead, StreamResponse
from chassis.http1.streamed_response import StreamedResponse
from sidecar.errors import ApiError
from sidecar.gateway import errors
from sidecar.gateway.cors import Origins
from sidecar.gateway.passing import Accepted
from sidecar.gateway.relay import SHORT, Relay, is_event_stream, is_short
from sidecar.gateway.response_heads import ResponseHeads
from sidecar.gateway.session_bindings import Holder, SessionBindings
from sidecar.gateway.session_ids import HEADER as SESSION_ID
from sidecar.gateway.session_ids import is_session_id
from sidecar.gateway.step_up import UNREAD, Examined
from sidecar.gateway.streams import Stream

Relayed = AnyResponse | ApiError


class AppResponses:
    """Makes responses for clients, and remembers whom each session was given to."""

    def __init__(self, origins: Origins) -> None:
        self._bindings = SessionBindings()
        self._heads = ResponseHeads(origins)

    def are_sessions_of(self, accepted: Accepted) -> bool:
        """Whether the sessions that the call names were given to its user and client."""
        if not accepted.call.session_ids:
            return True
        holder = _holder(accepted)
        return all(self._bindings.belongs_to(one, holder) for one in accepted.call.session_ids)

    def bind(
        self, request: Request, accepted: Accepted, response: StreamedResponse
    ) -> ApiError | None:
        """Note whose session it is that the app has given, or ended."""
        given = response.headers.get_all(SESSION_ID) if SESSION_ID in response.headers else ()
        if given and not (len(given) == 1 and is_session_id(given[0])):
            return errors.APP_BAD_RESPONSE.with_reason("session_id")
        if given and not self._bindings.bind(given[0], _holder(accepted)):
            return errors.SESSION_CONFLICT
        if request.method == "DELETE" and 200 <= response.status < 300:
            for session_id in accepted.call.session_ids:
                self._bindings.unbind(session_id)
        return None

    def at_once(
        self,
        request: Request,
        response: StreamedResponse,
        done: Callable[[], object],
        stream: Stream | None = None,
        accepted: Accepted | None = None,
        examined: Examined = UNREAD,
    ) -> AnyResponse | None:
        """The response for the client; None where `when_whole` makes it.

        A short one goes out whole, so that it never breaks off. Of another one, `done` is called
        at the end of its body.
        """
        bind = None
        if accepted is not None and _names_a_session_later(request, response):
            bind = self._binder(accepted)
        if bind is not None or request.method == "HEAD" or not is_short(response):
            relay = Relay(response, stream, bind, done, examined.begun)
            head = self._head(request, response, examined)
            return StreamResponse(head, relay, length=response.length)
        if response.whole:
            body = examined.begun + response.arrived()
            return Response(self._head(request, response, examined), body)
        return None

    async def when_whole(
        self, request: Request, response: StreamedResponse, examined: Examined = UNREAD
    ) -> Response | ApiError:
        """The response for the client, when the short body of `response` is whole."""
        try:
            body = examined.begun + await response.read(SHORT)
            return Response(self._head(request, response, examined), body)
        except NoResponse:
            return errors.APP_BAD_RESPONSE.with_reason("app_response_broken_off")

    def _head(
        self, request: Request, response: StreamedResponse, examined: Examined
    ) -> ResponseHead:
        return self._heads.of(request.headers, response, keeps_challenge=examined.keeps_challenge)

    def _binder(self, accepted: Accepted) -> Callable[[str], bool]:
        return lambda session_id: self._bindings.bind(session_id, _holder(accepted))


def _holder(accepted: Accepted) -> Holder:
    return Holder(accepted.identity.sub, accepted.identity.client_id)


def _names_a_session_later(request: Request, response: StreamedResponse) -> bool:
    """Whether the older transport may name a session in the first event of this response."""
    return request.method == "GET" and is_event_stream(response)
