"""The body of a call on its way to an API: kept where it may be sent again, streamed otherwise."""

from typing import Final

from chassis.http1.errors import BodyTooLarge, BodyTooSlow, Refused
from chassis.http1.outgoing import OutgoingBody
from chassis.http1.request import Request
from sidecar.apis import Api
from sidecar.attach.call import AttachCall
from sidecar.attach.parameters import forwarded_parameters
from sidecar.errors import INVALID_REQUEST, ApiError

MOST_REPEATED: Final = 64 * 1024
MOST_FORM: Final = 1024 * 1024

_PIECE_SECONDS: Final = 60.0
_BODY_SECONDS: Final = 60.0

Body = bytes | OutgoingBody | None


def is_in_memory(request: Request, call: AttachCall) -> bool:
    """Whether the body is there, goes on as it is, and may be sent again."""
    body = request.body
    return body is not None and len(body) <= MOST_REPEATED and not (body and call.sends_form)


def body_in_memory(request: Request) -> bytes | None:
    """The body to send of one that `is_in_memory`; None: no body and no framing."""
    framed = "content-length" in request.headers or request.method in ("POST", "PUT", "PATCH")
    return request.body if request.body or framed else None


async def outgoing_body(request: Request, call: AttachCall, api: Api) -> Body | ApiError:
    """The body to send: bytes may be sent again, an `OutgoingBody` may not; None: there is none.

    A form is read whole, and what authenticates in it is left out as it is of a query.
    """
    if is_in_memory(request, call):
        return body_in_memory(request)
    length = request.head.content_length
    if call.sends_form:
        return await _form(request, call, api)
    if length is not None and length <= MOST_REPEATED:
        return await _read(request, MOST_REPEATED)
    return OutgoingBody(request.stream(_PIECE_SECONDS), length)


async def _form(request: Request, call: AttachCall, api: Api) -> bytes | ApiError:
    body = await _read(request, MOST_FORM)
    if isinstance(body, ApiError):
        return body
    # Latin-1 keeps every byte; names that matter are ASCII.
    kept = forwarded_parameters(body.decode("latin-1"), api, call.unverified_jwt)
    return kept if isinstance(kept, ApiError) else kept.encode("latin-1")


async def _read(request: Request, most: int) -> bytes | ApiError:
    try:
        return await request.read(most, _BODY_SECONDS)
    except BodyTooLarge:
        return INVALID_REQUEST.with_reason("form_too_long", "A form must be at most 1 MiB long.")
    except BodyTooSlow:
        return INVALID_REQUEST.with_reason("body_too_slow", "The body took too long to arrive.")
    except Refused:
        return INVALID_REQUEST.with_reason("body_broken_off", "The body broke off.")
