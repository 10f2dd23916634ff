"""The records storage keeps, as values. Times are whole seconds since the Unix epoch."""

from enum import StrEnum
from typing import Any, Final, NamedTuple

from authserver.values import Hidden, Value
from chassis.spiffe_id import Workload

GRANT_TYPES: Final = ("authorization_code", "refresh_token")


class Client(Value, frozen=True):
    """An OAuth client (RFC 7591), registered or described by a document of its own.

    The first of `auth_methods` is its own choice. `secret_hash` is None where it has no secret;
    `jwks` (a JWK Set) and `jwks_uri` are for clients that sign assertions.
    """

    client_id: str
    name: str
    redirect_uris: tuple[str, ...]
    auth_methods: tuple[str, ...]
    grant_types: tuple[str, ...]
    application_type: str
    secret_hash: Hidden[bytes | None] = None
    jwks: dict[str, Any] | None = None
    jwks_uri: str | None = None

    @property
    def may_refresh(self) -> bool:
        return "refresh_token" in self.grant_types


class User(Value, frozen=True):
    """A person: known by (upstream issuer, subject), never by e-mail."""

    user_id: str
    upstream_issuer: str
    subject: str


class Stage(StrEnum):
    """Where a transaction waits: for our consent page, or for the upstream's callback.

    The next two are the same of an account that is connected to a session there already is, and
    the last one is the callback of somebody who wants to see their connections.
    """

    CONSENT = "consent"
    UPSTREAM = "upstream"
    CONNECT = "connect"
    CONNECT_CONSENT = "connect_consent"
    ACCOUNT = "account"


class Account(Value, frozen=True):
    """The name by which a person knows their account, and the upstream it is at.

    Both may be empty. It is shown to that person and used for nothing else.
    """

    name: Hidden[str] = ""
    upstream: str = ""


NO_ACCOUNT: Final = Account()


class AuthorizationRequest(Value, frozen=True):
    """A validated authorization request, as it stays until its code is issued.

    `owner` is who owned the resource then: whom the user is asked about, and nobody else;
    `owner_uid` says which object of that name.
    `upstreams` are those that the consent page named. `upstream_scopes` are scopes that were asked
    for beyond what the upstreams are asked for anyway, each as (upstream, scope).
    """

    client_id: str
    redirect_uri: str
    state: Hidden[str | None]
    code_challenge: str
    resource: str
    scope: str
    nonce: Hidden[str | None] = None
    owner: Workload | None = None
    upstreams: tuple[str, ...] = ()
    upstream_scopes: tuple[tuple[str, str], ...] = ()
    owner_uid: str = ""


class Code(Value, frozen=True):
    """An authorization code's other half; the code itself is kept as a hash only."""

    tsid: str
    client_id: str
    redirect_uri: str
    code_challenge: str
    resource: str
    nonce: Hidden[str | None] = None
    redeemed: bool = False


class Session(Value, frozen=True):
    """One client's authorization by one user for one resource; `tsid` is its public handle.

    `signed_in_at` is when the user was last at the upstream for it. `sign_in_required` says that
    a release was refused since then, because only a sign-in helps. `upstreams` are those that its
    authorization named; None for a session stored by an earlier version. `when_needed` are those
    of them that declined or failed at the sign-in, or that no sign-in asks for: their absence
    refuses no refresh. `declined_scopes` are scopes of upstreams, as clients write them, that the
    user was asked for and did not grant. `blocked`: an operator keeps the user out. `owner_uid` is
    the UID of the owner's object, empty where the map has none.
    """

    tsid: str
    user_id: str
    client_id: str
    resource: str
    owner: Workload
    scope: str
    created_at: int
    expires_at: int
    ended_at: int | None = None
    signed_in_at: int = 0
    sign_in_required: bool = False
    upstreams: tuple[str, ...] | None = None
    when_needed: tuple[str, ...] = ()
    blocked: bool = False
    declined_scopes: tuple[str, ...] = ()
    owner_uid: str = ""

    def live(self, now: float) -> bool:
        return self.ended_at is None and now < self.expires_at and not self.blocked


class UpstreamTokens(Value, frozen=True):
    """What an upstream gave; each end is None where it did not say.

    `refresh_expires_at`: when the refresh token ends if it is not presented before.
    `authorization_expires_at`: when the user's authorization ends, whatever is done.
    `origins`: where this account's APIs are, each as (member of the token answer, `https://HOST`).
    """

    access_token: Hidden[str]
    refresh_token: Hidden[str | None]
    scope: str | None
    obtained_at: int
    expires_at: int | None
    refresh_expires_at: int | None = None
    authorization_expires_at: int | None = None
    # Sealed with the token: a writer of the database cannot send it elsewhere.
    origins: Hidden[tuple[tuple[str, str], ...]] = ()

    @property
    def needs_user_at(self) -> int | None:
        """From when on only the user can bring another token; None where nothing tells."""
        access_ends = self.expires_at if self.refresh_token is None else None
        ends = (access_ends, self.authorization_expires_at)
        return min((end for end in ends if end is not None), default=None)


class ClientRegistration(Value, frozen=True):
    """Our client at one authorization server: what an upstream's tokens belong to.

    `authorization_server` is its issuer, or its token endpoint where it has none.
    """

    authorization_server: str
    client_id: str


class Grant(Value, frozen=True):
    """What one upstream gave in a sign-in, whom it named, and to which registration of ours."""

    upstream: str
    upstream_issuer: str
    upstream_subject: str
    tokens: UpstreamTokens
    asked_scope: str = ""
    account: Hidden[str] = ""
    registration: ClientRegistration | None = None


class PendingSignIn(Value, frozen=True):
    """A sign-in under way: the request, the upstream leg it waits for, what earlier legs gave.

    The leg's fields are empty until consent was given. `remaining` are the upstreams still to
    be asked after this leg. `user_id` is set where a signed-in browser already named the user,
    at `signed_in_at`; `question_hash` where the consent may be remembered. `failed` are upstreams
    that declined or failed, and that the sign-in went on without. `connects` is the link by which
    an account is being connected to a session; its `request` is that session's.
    """

    request: AuthorizationRequest
    remaining: tuple[str, ...]
    upstream: str = ""
    nonce: Hidden[str] = ""
    code_verifier: Hidden[str] = ""
    grants: tuple[Grant, ...] = ()
    user_id: str = ""
    signed_in_at: int = 0
    question_hash: str = ""
    asks_for_account: bool = False
    failed: tuple[str, ...] = ()
    account: Account = NO_ACCOUNT
    connects: Hidden[str] = ""

    @property
    def names_its_user(self) -> bool:
        return bool(self.user_id or self.grants)


class ConnectionKey(NamedTuple):
    """A connection belongs to one user, one owner and one upstream.

    `made_of` and `variant` are set for tokens that an exchange made (RFC 8693): the upstream of the
    connection that they were made of, and a hash of what was asked for.
    """

    user_id: str
    owner: Workload
    upstream: str
    made_of: str = ""
    variant: str = ""

    @property
    def root(self) -> "ConnectionKey":
        """The connection that these tokens live on: itself, or the one that they were made of."""
        return ConnectionKey(self.user_id, self.owner, self.made_of) if self.made_of else self


class Connection(Value, frozen=True):
    """The upstream tokens of one user, held for one owner, from one upstream.

    `registration` is None in a row that was stored before registrations were. `generation`
    grows with every new set of tokens; what follows is of this generation. `dead`: its refresh
    token can never be presented again. `refresh_claim` names who set out last to present it;
    `first_claimed_at` is from when on it may have been presented without an answer that we know.
    `refusals` counts definite refusals since `refused_since`. `rejected`: an API and the upstream
    both refused the access token.
    """

    key: ConnectionKey
    generation: int
    upstream_issuer: str
    upstream_subject: str
    tokens: UpstreamTokens
    asked_scope: str = ""
    dead: bool = False
    refresh_claim: str | None = None
    refresh_claimed_at: int | None = None
    first_claimed_at: int | None = None
    registration: ClientRegistration | None = None
    refused_since: int | None = None
    refusals: int = 0
    rejected: bool = False
