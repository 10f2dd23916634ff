"""Every protocol error, with its code and status on the class, and who may learn the reason.

A refusal carries two texts: `reason`, a code for our log and metrics, and the description its
receiver gets. Descriptions are constants; nothing a user or an upstream sent is repeated.
"""

import re
from typing import Final, Self

# RFC 6749 section 5.2, `error_description`.
_DESCRIPTION: Final = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]*")


class ProtocolError(Exception):
    """An error answered as JSON (RFC 6749 section 5.2).

    Authlib's, which would do, brings clients and servers of OAuth: a fiftieth of the start.
    Raises ValueError for a description of other characters than the RFC's.
    """

    error = "server_error"
    status_code = 500

    def __init__(
        self, reason: str, description: str = "", *, headers: dict[str, str] | None = None
    ) -> None:
        if _DESCRIPTION.fullmatch(description) is None:
            raise ValueError("the description has characters that RFC 6749 forbids")
        super().__init__(f"{self.error}: {description}")
        self.reason, self.description = reason, description
        self.headers = headers or {}
        self._more: dict[str, str] = {}

    def with_members(self, **more: str) -> Self:
        """This refusal, with more members in its JSON body."""
        self._more |= more
        return self

    def members(self) -> dict[str, str]:
        """The JSON body."""
        described = {"error_description": self.description} if self.description else {}
        return {"error": self.error} | described | self._more


class InvalidRequest(ProtocolError):
    error, status_code = "invalid_request", 400


class UnsupportedMediaType(ProtocolError):
    """The body is not of the form the endpoint reads."""

    error, status_code = "invalid_request", 415


class InvalidClient(ProtocolError):
    error, status_code = "invalid_client", 401


class InvalidGrant(ProtocolError):
    error, status_code = "invalid_grant", 400


class UnauthorizedClient(ProtocolError):
    error, status_code = "unauthorized_client", 400


class ForbiddenClient(ProtocolError):
    """A valid identity that may not call here (`unauthorized_client`, but 403)."""

    error, status_code = "unauthorized_client", 403


class UnsupportedGrantType(ProtocolError):
    error, status_code = "unsupported_grant_type", 400


class UnsupportedResponseType(ProtocolError):
    error, status_code = "unsupported_response_type", 400


class InvalidScope(ProtocolError):
    error, status_code = "invalid_scope", 400


class InvalidTarget(ProtocolError):
    """RFC 8707 section 2: the resource, or the upstream, is not one the caller may name."""

    error, status_code = "invalid_target", 400


class AccessDenied(ProtocolError):
    error, status_code = "access_denied", 403


class LoginRequired(ProtocolError):
    """OpenID Connect Core section 3.1.2.6, for `prompt=none`."""

    error, status_code = "login_required", 400


class ConsentRequired(ProtocolError):
    """OpenID Connect Core section 3.1.2.6, for `prompt=none`."""

    error, status_code = "consent_required", 400


class InvalidToken(ProtocolError):
    """RFC 6750 section 3.1."""

    error, status_code = "invalid_token", 401

    def __init__(self, reason: str) -> None:
        challenge = 'Bearer error="invalid_token"'
        super().__init__(reason, headers={"WWW-Authenticate": challenge})


class InsufficientScope(ProtocolError):
    """RFC 6750 section 3.1."""

    error, status_code = "insufficient_scope", 403

    def __init__(self, reason: str) -> None:
        challenge = 'Bearer error="insufficient_scope", scope="openid"'
        super().__init__(reason, headers={"WWW-Authenticate": challenge})


class StepUpRequired(ProtocolError):
    """The upstream wants scopes that the user has not granted yet; `scope` is to be asked for."""

    error, status_code = "insufficient_scope", 403

    def __init__(self, reason: str, scope: str) -> None:
        super().__init__(reason)
        self.with_members(scope=scope)


class StepUpDeclined(ProtocolError):
    """The same, where the user has said no to it in this session: nothing is to be asked for."""

    error, status_code = "insufficient_scope", 403


class InvalidRedirectUri(ProtocolError):
    """RFC 7591 section 3.2.2."""

    error, status_code = "invalid_redirect_uri", 400


class InvalidClientMetadata(ProtocolError):
    """RFC 7591 section 3.2.2."""

    error, status_code = "invalid_client_metadata", 400


class RateLimited(ProtocolError):
    error, status_code = "temporarily_unavailable", 429

    def __init__(self, reason: str, retry_after: int) -> None:
        super().__init__(reason, headers={"Retry-After": str(retry_after)})


class TemporarilyUnavailable(ProtocolError):
    error, status_code = "temporarily_unavailable", 503

    def __init__(self, reason: str, description: str = "", *, retry_after: int = 5) -> None:
        super().__init__(reason, description, headers={"Retry-After": str(retry_after)})


class ServerError(ProtocolError):
    """RFC 6749 section 4.1.2.1: something that waiting and signing in again do not mend."""


class ErrorRedirect(Exception):
    """An authorization error that goes back to the client's validated redirect URI (4.1.2.1).

    `upstream` names the upstream at which a sign-in ended; it is empty where none had a part.
    `consented`: the person has answered our page, which said where they would be sent.
    """

    def __init__(
        self,
        refusal: ProtocolError,
        redirect_uri: str,
        state: str | None,
        upstream: str = "",
        *,
        consented: bool = True,
    ) -> None:
        super().__init__(refusal.reason)
        self.refusal, self.redirect_uri, self.state = refusal, redirect_uri, state
        self.upstream, self.consented = upstream, consented


class UserFacingError(Exception):
    """An error for the person at the browser: a page of ours, never a redirect."""

    def __init__(self, reason: str, message: str, *, status: int = 400) -> None:
        super().__init__(reason)
        self.reason, self.message, self.status = reason, message, status
