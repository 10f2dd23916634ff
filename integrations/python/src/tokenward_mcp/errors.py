"""Every way the sidecar says no, as exceptions that carry what it said."""

from collections.abc import Sequence


class TokenError(Exception):
    """There is no token. The fields are the members of the sidecar's answer.

    `status`: HTTP status of the sidecar's answer.
    `error`: its code, such as `unknown_upstream`.
    `action`: `reauthenticate`, `retry`, `fix_request` or `none`.
    `request_id`: names this call in the sidecar's log; None where no sidecar answered.
    `connect_url`: a page where the user can mend it, where there is one.
    `challenges`: values of `WWW-Authenticate`, ready for the MCP client.
    `scope`: what the MCP client will ask its user for, where a scope is missing.
    `retry_after`: seconds, or an HTTP date (RFC 9110 section 10.2.3), as the sidecar said it.
    """

    def __init__(
        self,
        error: str,
        error_description: str,
        *,
        status: int,
        action: str = "none",
        request_id: str | None = None,
        connect_url: str | None = None,
        challenges: Sequence[str] = (),
        retry_after: str | None = None,
        scope: str | None = None,
    ) -> None:
        super().__init__(error, error_description)
        self.error, self.error_description = error, error_description
        self.status, self.action = status, action
        self.request_id, self.connect_url = request_id, connect_url
        self.challenges, self.retry_after = tuple(challenges), retry_after
        self.scope = scope

    def __str__(self) -> str:
        where = f", request {self.request_id}" if self.request_id else ""
        mend = f" Open {self.connect_url} to connect it." if self.connect_url else ""
        return f"{self.error_description} ({self.error}{where}){mend}"

    @property
    def members(self) -> dict[str, str]:
        """The members for a JSON answer; absent ones are left out."""
        members = {
            "error": self.error,
            "error_description": self.error_description,
            "action": self.action,
            "request_id": self.request_id,
            "connect_url": self.connect_url,
            "scope": self.scope,
        }
        return {name: value for name, value in members.items() if value is not None}


class SignInRequired(TokenError):
    """401: the user has to sign in again, or to open `connect_url`."""


class InsufficientScope(TokenError):
    """403: the user has not granted what `missing_scope` names.

    Without `scope` they have declined it, and asking again is no use.
    """


class TemporarilyUnavailable(TokenError):
    """429 or 503: try again later. It is not the user's fault; never ask for a sign-in."""


class AmbiguousRequest(TokenError):
    """400: the MCP client's request can be read in two ways."""

    def __init__(self, error_description: str) -> None:
        super().__init__("invalid_request", error_description, status=400, action="fix_request")


def unavailable(error_description: str) -> TemporarilyUnavailable:
    """No usable answer came from the sidecar."""
    return TemporarilyUnavailable(
        "temporarily_unavailable",
        error_description,
        status=503,
        action="retry",
        retry_after="2",
    )
