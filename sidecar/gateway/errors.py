"""The gateway's own refusals, beside those of every door."""

from dataclasses import replace
from typing import Final

from sidecar import errors
from sidecar.errors import ApiError

FOREIGN_ORIGIN: Final = replace(
    errors.FORBIDDEN_CALLER,
    description="Pages of this origin may not call.",
    reason="foreign_origin",
)
BAD_REQUEST: Final = replace(
    errors.INVALID_REQUEST, description="The request is not one that can be forwarded."
)
METHOD_NOT_ALLOWED: Final = ApiError(
    405, "invalid_request", "fix_request", "The document is read by GET.", reason="method"
)
BODY_NOT_ALLOWED: Final = BAD_REQUEST.with_reason(
    "body_on_open_path", "A request without a token has no body here."
)
ATTACH_ONLY: Final = replace(
    errors.ATTACH_ONLY,
    description="The operator does not let this server's code have the upstream's token.",
)
UNKNOWN_SESSION: Final = ApiError(
    404, "unknown_session", "fix_request", "There is no such session: begin a new one."
)
SESSION_CONFLICT: Final = ApiError(
    502, "session_conflict", "none", "The server gave a session of somebody else."
)
NOT_PERMITTED: Final = replace(errors.UNKNOWN_UPSTREAM, status=403)
TOO_MANY_STREAMS: Final = replace(
    errors.RATE_LIMITED, description="This user has too many requests under way."
)
SERVER_FULL: Final = replace(
    errors.TEMPORARILY_UNAVAILABLE, description="Too many requests are under way."
)
APP_UNREACHABLE: Final = ApiError(
    502,
    "bad_gateway",
    "retry",
    "The server behind the gateway does not listen.",
    reason="app_not_listening",
)
APP_BAD_RESPONSE: Final = ApiError(
    502,
    "bad_gateway",
    "none",
    "The server behind the gateway gave no proper response.",
    reason="app_response",
)
APP_TOO_SLOW: Final = ApiError(
    504,
    "gateway_timeout",
    "none",
    "The server behind the gateway did not respond in time.",
    reason="app_too_slow",
)
APP_REFUSES_TOKEN: Final = ApiError(
    502,
    "app_refuses_token",
    "none",
    "The server behind the gateway refuses a token that was just renewed.",
)
APP_PORT_OPEN: Final = ApiError(
    503,
    "app_port_open",
    "none",
    "The server's own port can be reached past the gateway; its operator has to close it.",
)


def at_the_gateway(refusal: ApiError) -> ApiError:
    """A refusal of the broker as a client of the MCP server gets it.

    MCP clients take 404 for the end of their session, and begin a new one for ever.
    """
    if refusal.status == 404 or refusal.reason == errors.UPSTREAM_NOT_NAMED.reason:
        return NOT_PERMITTED.with_reason(refusal.reason)
    return refusal
