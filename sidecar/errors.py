"""Every way the sidecar says no: status, error name, and what the caller should do next.

Descriptions are constants: nothing a caller or the authserver sent is ever repeated.
"""

import json
from dataclasses import dataclass, field, replace
from typing import Final, Literal

_RETRY_AFTER_SECONDS: Final = 2

Action = Literal["reauthenticate", "retry", "fix_request", "none"]


@dataclass(frozen=True, slots=True)
class ApiError:
    """One refusal; `reason` is a code for our own log and never leaves the process.

    `detail` is OpenSSL's message where it refused a certificate, for our own log too.
    `retry_after` is what the authserver asked for, in seconds. `scope` is what a client has to ask
    for. `connect_url` is where the user mends it; whoever has it learns nothing, but it is no text
    for a log.
    """

    status: int
    error: str
    action: Action
    description: str
    retry_after: int | None = None
    scope: str | None = None
    connect_url: str | None = field(default=None, repr=False)
    reason: str = field(default="", compare=False)
    detail: str = field(default="", compare=False)

    def with_reason(
        self, reason: str, description: str = "", *, retry_after: int | None = None
    ) -> "ApiError":
        """The same refusal, told apart in our log, and more precise to its receiver."""
        description = description or self.description
        return replace(self, reason=reason, description=description, retry_after=retry_after)

    @property
    def headers(self) -> dict[str, str]:
        if self.action != "retry":
            return {}
        return {"Retry-After": str(self.retry_after or _RETRY_AFTER_SECONDS)}

    def body(self, request_id: str) -> bytes:
        members = {
            "error": self.error,
            "error_description": self.description,
            "action": self.action,
            "request_id": request_id,
            "scope": self.scope,
            "connect_url": self.connect_url,
        }
        known = {name: text for name, text in members.items() if text is not None}
        return json.dumps(known).encode()


INVALID_REQUEST: Final = ApiError(400, "invalid_request", "fix_request", "This is no HTTP request.")
NO_SUCH_ROUTE: Final = ApiError(
    404, "invalid_request", "fix_request", "There is no such route; tokens are at POST /v1/token."
)
NO_TOKEN: Final = ApiError(
    401,
    "invalid_token",
    "fix_request",
    "No bearer access token was sent: pass on the one that the MCP client sent, or relay this"
    " challenge to a client that sent none.",
)
INVALID_TOKEN: Final = ApiError(
    401, "invalid_token", "reauthenticate", "The access token is not accepted."
)
REAUTHENTICATION_REQUIRED: Final = ApiError(
    401,
    "reauthentication_required",
    "reauthenticate",
    "The user has to sign in again.",
)
FORBIDDEN_CALLER: Final = ApiError(
    403,
    "forbidden_caller",
    "fix_request",
    "Only a program of this pod may ask.",
)
UNKNOWN_UPSTREAM: Final = ApiError(
    404, "unknown_upstream", "none", "This workload may not obtain tokens of that upstream."
)
UPSTREAM_NOT_NAMED: Final = ApiError(
    400,
    "invalid_request",
    "fix_request",
    "This workload may obtain tokens of several upstreams: name one in the body.",
    reason="upstream_not_named",
)
ATTACH_ONLY: Final = ApiError(
    403,
    "attach_only",
    "none",
    "Tokens of this server are not handed out: call the API at /upstream/NAME/ of this address.",
    reason="attach_only",
)
INSUFFICIENT_SCOPE: Final = ApiError(
    403, "insufficient_scope", "reauthenticate", "The user has to allow more than was granted."
)
SCOPE_NOT_PERMITTED: Final = ApiError(
    400, "invalid_request", "none", "Nobody may be asked for these scopes here."
)
NARROWER_NOT_PERMITTED: Final = ApiError(
    400, "invalid_request", "none", "This workload may not obtain such a narrower token."
)
DESTINATION_NOT_ALLOWED: Final = ApiError(
    403,
    "destination_not_allowed",
    "none",
    "This host, method or path is outside of what the operator allows.",
)
TOKEN_IN_RESPONSE: Final = ApiError(
    502,
    "token_in_response",
    "none",
    "The API's answer holds the access token, so it is not passed on.",
)
# Not `retry`: whether the API has acted is not known.
BAD_GATEWAY: Final = ApiError(
    502, "bad_gateway", "none", "The API could not be reached, or its answer cannot be read."
)
GATEWAY_TIMEOUT: Final = ApiError(504, "gateway_timeout", "none", "The API did not answer in time.")
RATE_LIMITED: Final = ApiError(429, "rate_limited", "retry", "Too many tokens were asked for.")
TEMPORARILY_UNAVAILABLE: Final = ApiError(
    503,
    "temporarily_unavailable",
    "retry",
    "The token cannot be obtained right now.",
)

# What the authserver decided, as opposed to what merely went wrong on the way to it.
DENIALS: Final = frozenset(
    refusal.error
    for refusal in (INVALID_TOKEN, REAUTHENTICATION_REQUIRED, UNKNOWN_UPSTREAM, INSUFFICIENT_SCOPE)
)

# Beside the others, at the gateway alone (`sidecar.gateway.errors`).
_OF_THE_GATEWAY: Final = frozenset(
    {
        "app_port_open", "app_refuses_token", "bad_gateway", "gateway_timeout", "session_conflict",
        "unknown_session",
    }
)  # fmt: skip

RESULTS: Final = frozenset(
    {
        "ok",
        INVALID_REQUEST.error,
        FORBIDDEN_CALLER.error,
        ATTACH_ONLY.error,
        DESTINATION_NOT_ALLOWED.error,
        TOKEN_IN_RESPONSE.error,
        BAD_GATEWAY.error,
        GATEWAY_TIMEOUT.error,
        RATE_LIMITED.error,
        TEMPORARILY_UNAVAILABLE.error,
        *DENIALS,
        *_OF_THE_GATEWAY,
    }
)
