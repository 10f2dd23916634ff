"""What an upstream can do for a flow, and how its failures are told apart."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from authserver.oauth.exchange_target import ExchangeTarget
from authserver.storage.records import ClientRegistration, Grant, UpstreamTokens
from authserver.values import Hidden, Value


class UpstreamFailure(Exception):
    """A call to an upstream did not give what was asked; the text is a code for the log.

    `upstream` is the configured name. `member` names the part of the answer that was wrong,
    never its value. `detail` is a text of OpenSSL's. All three are for the operator only.
    """

    def __init__(self, reason: str, *, member: str = "", detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.member, self.detail = reason, member, detail
        self.upstream = ""

    @property
    def facts(self) -> dict[str, str]:
        """What a log line says of the failure, without empty parts."""
        facts = {
            "upstream": self.upstream,
            "reason": self.reason,
            "member": self.member,
            "detail": self.detail,
        }
        return {name: text for name, text in facts.items() if text}


class GrantRevoked(UpstreamFailure):
    """The upstream said that the grant is over: only a new sign-in of the user helps."""


class Unavailable(UpstreamFailure):
    """The upstream certainly did not act on the request: it may be repeated later.

    `refused`: the upstream gave a definite no to this very request. `lasting`: time alone does
    not mend it, the configuration has to change. `retry_after`: seconds that it asked for.
    """

    def __init__(
        self,
        reason: str,
        *,
        member: str = "",
        detail: str = "",
        refused: bool = False,
        lasting: bool = False,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(reason, member=member, detail=detail)
        self.refused, self.lasting, self.retry_after = refused, lasting, retry_after


class SubjectTokenRefused(Unavailable):
    """The provider did not accept the token that was to be exchanged (RFC 8693 section 2.2.2).

    That is a hint that it is over, and no verdict: servers say the same of what their policy
    forbids.
    """

    def __init__(self) -> None:
        super().__init__("subject_token_refused", member="error", refused=True)


class OutcomeUnknown(UpstreamFailure):
    """The request went out and no usable answer came: the upstream may have acted on it."""


class BadAnswer(UpstreamFailure):
    """The upstream's answer to a sign-in is not acceptable (a wrong issuer, nonce, type …)."""


class LoginRequest(Value, frozen=True):
    """What one authorization request to an upstream says.

    `more_scopes` are asked for beside those that are always asked for.
    """

    redirect_uri: str
    state: Hidden[str]
    nonce: Hidden[str]
    code_challenge: str
    choose_account: bool
    more_scopes: tuple[str, ...] = ()


class CallbackResponse(Value, frozen=True):
    """What came back in a callback, and what the request behind it said.

    `issuer` is the callback's `iss` parameter (RFC 9207), None where it has none.
    """

    code: Hidden[str]
    redirect_uri: str
    code_verifier: Hidden[str]
    nonce: Hidden[str]
    issuer: str | None
    more_scopes: tuple[str, ...] = ()


# Asked right before a refresh token is written to the socket: whether it may still be sent.
MaySend = Callable[[], Awaitable[bool]]


class RefreshRequest(Value, frozen=True):
    """A refresh token to be presented once: that of `tokens`, which `subject` was given."""

    tokens: UpstreamTokens
    subject: str
    may_send: MaySend


class ExchangeRequest(Value, frozen=True):
    """A token to be exchanged for another one, for `target` (RFC 8693 section 2.1)."""

    subject_token: Hidden[str]
    target: ExchangeTarget
    may_send: MaySend


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
    def step_up_scopes(self) -> tuple[str, ...]:
        """What a server may have its user asked for beyond `scopes`."""
        ...

    @property
    def scope_descriptions(self) -> Mapping[str, str]:
        """What scopes mean, in words; not all of them need to be there."""
        ...

    @property
    def registration(self) -> ClientRegistration:
        """Whose tokens these are: its issuer or token endpoint, and our client id there."""
        ...

    @property
    def user_issuer(self) -> str:
        """The issuer under which it names its users."""
        ...

    @property
    def former(self) -> "tuple[FormerUpstream, ...]":
        """The same upstream under registrations that the operator has replaced."""
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
    def repeats_uncertain_refresh(self) -> bool:
        """Whether a refresh token of unknown fate may be presented again."""
        ...

    @property
    def revocation_ends_grant(self) -> bool:
        """Whether one revocation ends all that the user granted to our client."""
        ...

    @property
    def exchange_only(self) -> bool:
        """Whether its own tokens are released to nobody, only what is made of them."""
        ...

    @property
    def made_of(self) -> str:
        """The upstream whose tokens its own are made of (RFC 8693); empty where users sign in."""
        ...

    @property
    def uses_form_post(self) -> bool:
        """Whether its answer comes as a form post, from its own site."""
        ...

    async def login_url(self, request: LoginRequest) -> str:
        """Where to send the user. Raises UpstreamFailure."""
        ...

    async def redeem(self, response: CallbackResponse) -> Grant:
        """Exchange a callback's code. Raises UpstreamFailure."""
        ...

    async def refresh(self, request: RefreshRequest) -> UpstreamTokens:
        """Present a refresh token once. Keeps it where the answer brings no new one.

        Raises GrantRevoked, Unavailable or OutcomeUnknown.
        """
        ...

    async def accepts(self, access_token: str) -> bool | None:
        """Whether its own subject source (userinfo) takes the token; False for a 401 only.

        None where it has no such source. Raises UpstreamFailure where it gave no clear answer.
        """
        ...

    async def revoke(self, tokens: UpstreamTokens) -> bool:
        """Revoke at the upstream (RFC 7009); False where it offers no way to. Raises
        UpstreamFailure.
        """
        ...


class FormerUpstream(Value, frozen=True):
    """An upstream under a former registration, in use until then (seconds since the epoch)."""

    upstream: Upstream
    until: float


class ExchangingUpstream(Upstream, Protocol):
    """An upstream whose tokens are made of another one's. Nobody signs in there."""

    @property
    def target(self) -> ExchangeTarget:
        """All that the operator allows to be asked for."""
        ...

    def variant(self, target: ExchangeTarget) -> str:
        """The name under which a token for `target` is kept; another one for another client."""
        ...

    def is_within(self, tokens: UpstreamTokens, target: ExchangeTarget) -> bool:
        """Whether the tokens say of no scope that was not asked for."""
        ...

    async def exchange(self, request: ExchangeRequest) -> UpstreamTokens:
        """Make a token. The token that it is made of stays what it was, whatever comes of it.

        Raises SubjectTokenRefused, Unavailable or OutcomeUnknown.
        """
        ...


# The configured upstreams by name; hot reload changes what it holds.
Upstreams = Mapping[str, Upstream]
