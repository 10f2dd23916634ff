"""What the caller gets for a call that got no answer of the API."""

from typing import Final

from chassis.http1.no_response import (
    BadResponse,
    Disconnected,
    NoResponse,
    ProxyRefused,
    TooSlow,
    Unreachable,
    Untrusted,
)
from sidecar.errors import BAD_GATEWAY, GATEWAY_TIMEOUT, ApiError

# Whether the API has acted is known only where nothing was sent.
_FAILURES: Final[dict[type[NoResponse], ApiError]] = {
    ProxyRefused: BAD_GATEWAY.with_reason("proxy_refused"),
    Unreachable: BAD_GATEWAY.with_reason("api_unreachable"),
    Untrusted: BAD_GATEWAY.with_reason("api_untrusted"),
    Disconnected: BAD_GATEWAY.with_reason("api_disconnected"),
    BadResponse: BAD_GATEWAY.with_reason("api_bad_response"),
    TooSlow: GATEWAY_TIMEOUT.with_reason("api_too_slow"),
}


def refusal_of(failure: NoResponse) -> ApiError:
    return _FAILURES[type(failure)]
