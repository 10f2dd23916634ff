"""The heads of responses for the client: written anew, and once where the app repeats its own."""

from chassis.http1.request import Headers
from chassis.http1.response import ResponseHead
from chassis.http1.streamed_response import StreamedResponse
from sidecar.gateway.cors import Origins
from sidecar.gateway.header_rules import response_fields


class ResponseHeads:
    """Remembers the last head: an app that sends the same again has the same one here."""

    def __init__(self, origins: Origins) -> None:
        self._origins = origins
        self._last: tuple[object, ResponseHead] | None = None

    def of(
        self, request: Headers, response: StreamedResponse, *, keeps_challenge: bool
    ) -> ResponseHead:
        """The head of `response` for the client that sent these headers."""
        about_origins = self._origins.fields(request)
        key = (response.headers, response.status, about_origins, keeps_challenge)
        if self._last is None or self._last[0] != key:
            fields = response_fields(response.headers)
            if not keeps_challenge:
                fields = [(name, value) for name, value in fields if name != "www-authenticate"]
            self._last = key, ResponseHead(response.status, [*fields, *about_origins])
        return self._last[1]
