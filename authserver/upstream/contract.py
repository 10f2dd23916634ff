"""What an upstream can do for a flow, and how its failures are told apart."""

from collections.abc import Mapping
from typing import Protocol

from authserver.storage.records import Grant, UpstreamTokens


class UpstreamFailure(Exception):
    """A call to an upstream did not give what was asked; the text is a code for the log."""


class GrantRevoked(UpstreamFailure):
    """The upstream said that the grant is over: only a new sign-in of the user helps."""


class Unavailable(UpstreamFailure):
    """The upstream certainly did not act on the request: it may be repeated later."""


class OutcomeUnknown(UpstreamFailure):
    """The request went out and no usable answer came: the upstream may have acted on it."""


class BadAnswer(UpstreamFailure):
    """The upstream's answer to a sign-in is not acceptable (a wrong issuer, nonce, type …)."""


class Upstream(Protocol):
    """A configured upstream."""

    @property
    def name(self) -> str: ...

    @property
    def display_name(self) -> str:
        """The name that people know it by."""
        ...

    @property
    def scopes(self) -> tuple[str, ...]: ...

    @property
    def scope_descriptions(self) -> Mapping[str, str]:
        """What scopes mean, in words; not all of them need to be there."""
        ...

    @property
    def rotates_refresh_tokens(self) -> bool:
        """Whether a refresh token may be dead once it was presented."""
        ...

    @property
    def reuse_grace_seconds(self) -> int:
        """For how long a rotating upstream promises to take a presented refresh token again."""
        ...

    @property
    def uses_form_post(self) -> bool:
        """Whether its answer comes as a form post, from its own site."""
        ...

    async def login_url(
        self,
        *,
        redirect_uri: str,
        state: str,
        nonce: str,
        code_challenge: str,
        choose_account: bool,
    ) -> str:
        """Where to send the user. Raises UpstreamFailure."""
        ...

    async def redeem(
        self, code: str, *, redirect_uri: str, code_verifier: str, nonce: str, issuer: str | None
    ) -> Grant:
        """Exchange a callback's code (`issuer`: its RFC 9207 parameter). Raises UpstreamFailure."""
        ...

    async def refresh(self, refresh_token: str, *, subject: str) -> UpstreamTokens:
        """Present a refresh token once. Keeps it where the answer brings no new one.

        Raises GrantRevoked, Unavailable or OutcomeUnknown.
        """
        ...

    async def revoke(self, tokens: UpstreamTokens) -> None:
        """Revoke at the upstream where it can (RFC 7009). Raises UpstreamFailure."""
        ...


# The configured upstreams by name; hot reload changes what it holds.
Upstreams = Mapping[str, Upstream]
