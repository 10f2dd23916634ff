"""Refusals as responses: what every door answers where it does not do what it was asked."""

from collections.abc import Iterable
from typing import Final

from chassis.http1.response import Response, ResponseHead
from chassis.request_ids import HEADER
from sidecar.errors import NO_TOKEN, ApiError
from sidecar.protected_resource import ProtectedResource

# Tells our answers from an API's, which go through the same door.
ERROR_HEADER: Final = "X-Tokenward-Error"

JSON_HEADERS: Final = {"Content-Type": "application/json", "Cache-Control": "no-store"}


def refusal_response(
    refusal: ApiError,
    request_id: str,
    resource: ProtectedResource,
    *,
    status: int | None = None,
    fields: Iterable[tuple[str, str]] = (),
) -> Response:
    """The answer; a 401 and a 403 of a scope carry the challenge that a client can be shown.

    `status` is another one than the refusal's, `fields` are sent beside its own.
    """
    headers = {
        **JSON_HEADERS,
        **refusal.headers,
        HEADER: request_id,
        ERROR_HEADER: refusal.error,
    }
    if refusal.status == 401:
        error = None if refusal == NO_TOKEN else "invalid_token"
        headers["WWW-Authenticate"] = resource.challenge(error, refusal.description)
    elif refusal.scope is not None:
        headers["WWW-Authenticate"] = resource.challenge(
            refusal.error, refusal.description, refusal.scope
        )
    head = ResponseHead(status or refusal.status, [*headers.items(), *fields])
    return Response(head, refusal.body(request_id))
