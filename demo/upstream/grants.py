"""What the fake upstream remembers and decides: sign-ins, codes, tokens, and what each is worth.

Every refresh spends its refresh token. A spent one that comes back means that two parties hold
it, so the whole grant dies with all its tokens; the same goes for a code (RFC 9700 section 4.14).
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from chassis.clock import Clock
from demo.upstream.protocol import AuthorizationRequest, InvalidGrant, InvalidToken, UnknownLogin

LOGIN_LIFETIME: Final = 600.0
CODE_LIFETIME: Final = 60.0

_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}", re.ASCII)


@dataclass(frozen=True)
class User:
    login: str
    id: int
    name: str
    password: str

    @property
    def subject(self) -> str:
        return f"user-{self.id}"


USERS: Final[Mapping[str, User]] = {
    "alice": User("alice", 1001, "Alice Liddell", "rabbit"),
    "bob": User("bob", 1002, "Bob Cratchit", "humbug"),
}


@dataclass
class Grant:
    """One sign-in and every token that stems from it; `refresh_token` is the one not yet spent."""

    user: User
    scope: str
    nonce: str | None
    refresh_token: str = ""
    dead: bool = False


@dataclass(frozen=True)
class Tokens:
    """What the token endpoint hands out; lifetimes in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int
    grant: Grant


@dataclass
class Counts:
    """How often each thing happened for one user, for proofs and tests."""

    code_redemptions: int = 0
    refreshes: int = 0
    reuse_detections: int = 0
    api_calls: int = 0


@dataclass(frozen=True)
class _Login:
    request: AuthorizationRequest
    expires_at: float


@dataclass(frozen=True)
class _Code:
    request: AuthorizationRequest
    user: User
    expires_at: float


@dataclass(frozen=True)
class _AccessToken:
    grant: Grant
    expires_at: float


class Grants:
    """Every method is synchronous, hence atomic among the requests of one event loop."""

    def __init__(
        self,
        *,
        now: Clock,
        access_token_lifetime: int,
        new_secret: Callable[[], str] = secrets.token_urlsafe,
    ) -> None:
        self.access_token_lifetime = access_token_lifetime
        self.counts = {login: Counts() for login in USERS}
        self.refused_refreshes = 0
        self._now = now
        self._new_secret = new_secret
        self._logins: dict[str, _Login] = {}
        self._codes: dict[str, _Code] = {}
        self._redeemed: dict[str, Grant] = {}
        self._access_tokens: dict[str, _AccessToken] = {}
        self._refresh_tokens: dict[str, Grant] = {}

    def open_login(self, request: AuthorizationRequest) -> str:
        """Remember `request` until its user signs in; the handle goes into the login page."""
        handle = self._new_secret()
        self._logins[handle] = _Login(request, self._now() + LOGIN_LIFETIME)
        return handle

    def sign_in(
        self, handle: str, username: str, password: str
    ) -> tuple[AuthorizationRequest, str] | None:
        """The request that was waiting and a code for it; None for a wrong name or password.

        Raises UnknownLogin for a handle that was used, has expired or never was.
        """
        login = self._logins.get(handle)
        if login is None or self._now() >= login.expires_at:
            raise UnknownLogin("this sign-in is over; start again")
        user = USERS.get(username)
        if user is None or not hmac.compare_digest(user.password.encode(), password.encode()):
            return None
        del self._logins[handle]
        code = self._new_secret()
        self._codes[code] = _Code(login.request, user, self._now() + CODE_LIFETIME)
        return login.request, code

    def redeem_code(self, code: str, *, redirect_uri: str, verifier: str) -> Tokens:
        """Any presentation spends the code. Raises InvalidGrant."""
        if (redeemed := self._redeemed.get(code)) is not None:
            redeemed.dead = True
            raise InvalidGrant("code was redeemed before; its tokens are revoked")
        issued = self._codes.pop(code, None)
        if issued is None or self._now() >= issued.expires_at:
            raise InvalidGrant("code is unknown or has expired")
        if redirect_uri != issued.request.redirect_uri:
            raise InvalidGrant("redirect_uri is not the one of the authorization request")
        if not _proves(verifier, issued.request.code_challenge):
            raise InvalidGrant("code_verifier does not match")
        grant = Grant(issued.user, issued.request.scope, issued.request.nonce)
        self._redeemed[code] = grant
        self.counts[grant.user.login].code_redemptions += 1
        return self._issue(grant)

    def grant(self, user: User, *, scope: str = "") -> Tokens:
        """The tokens of a sign-in, without its pages."""
        return self._issue(Grant(user, scope, None))

    def restore(self, user: User, *, scope: str, refresh_token: str) -> None:
        """Know a refresh token again that an earlier process gave out."""
        self._refresh_tokens[refresh_token] = Grant(user, scope, None, refresh_token)

    def refresh(self, refresh_token: str) -> Tokens:
        """Raises InvalidGrant; a spent token kills its grant."""
        grant = self._refresh_tokens.get(refresh_token)
        if grant is None or grant.dead:
            self.refused_refreshes += 1
            raise InvalidGrant("refresh token is unknown or revoked")
        if refresh_token != grant.refresh_token:
            grant.dead = True
            self.counts[grant.user.login].reuse_detections += 1
            raise InvalidGrant("refresh token was used before; the grant is revoked")
        self.counts[grant.user.login].refreshes += 1
        return self._issue(grant)

    def revoke(self, token: str) -> None:
        """A refresh token takes its grant along, an access token only itself (RFC 7009)."""
        if (grant := self._refresh_tokens.get(token)) is not None:
            grant.dead = True
        self._access_tokens.pop(token, None)

    def end(self, login: str, *, access_tokens_too: bool) -> None:
        """What a user does who takes our access away in the provider's settings.

        Providers differ in whether access tokens that are out end at once as well.
        """
        ended = [grant for grant in self._refresh_tokens.values() if grant.user.login == login]
        for grant in ended:
            grant.refresh_token = ""
            grant.dead = grant.dead or access_tokens_too
        self._refresh_tokens = {
            token: grant for token, grant in self._refresh_tokens.items() if grant not in ended
        }

    def access_tokens_of(self, login: str) -> list[str]:
        """The access tokens that a user was given, expired or not."""
        return [
            text for text, given in self._access_tokens.items() if given.grant.user.login == login
        ]

    def bearer(self, access_token: str) -> Grant:
        """The grant behind a token that is ours and still valid; raises InvalidToken."""
        found = self._access_tokens.get(access_token)
        if found is None or found.grant.dead:
            raise InvalidToken("access token is unknown or revoked")
        if self._now() >= found.expires_at:
            raise InvalidToken("access token has expired")
        return found.grant

    def _issue(self, grant: Grant) -> Tokens:
        access_token, grant.refresh_token = self._new_secret(), self._new_secret()
        self._refresh_tokens[grant.refresh_token] = grant
        expires_at = self._now() + self.access_token_lifetime
        self._access_tokens[access_token] = _AccessToken(grant, expires_at)
        return Tokens(access_token, grant.refresh_token, self.access_token_lifetime, grant)


def _proves(verifier: str, challenge: str) -> bool:
    """PKCE S256 (RFC 7636 section 4.6)."""
    if not _VERIFIER.fullmatch(verifier):
        return False
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    computed = base64.urlsafe_b64encode(digest).rstrip(b"=")
    return hmac.compare_digest(computed, challenge.encode())
