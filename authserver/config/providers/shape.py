"""The one shape in which a provider is described: settings, APIs, facts and their sources."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from authserver.values import Value

# OpenID Connect Core section 5.4 and 11, in the words of our consent page.
OPENID_SCOPES: Final[Mapping[str, str]] = {
    "openid": "Know which account you use",
    "profile": "See your name and profile",
    "email": "See your e-mail address",
    "offline_access": "Keep this access while you are away",
}
READ_AND_WRITE: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class Source(Value, frozen=True):
    """A page of the provider's own documentation, and the day it was read (ISO 8601)."""

    address: str
    read_on: str


class Refresh(Value, frozen=True, kw_only=True):
    """What a provider does when its tokens are refreshed; an empty text: its pages do not say.

    `rotation` is when a new refresh token comes. `access_lasts` and `refresh_lasts` are lifetimes
    in words. `spends`: whether a refresh token may be dead
    once it was presented. `reuse_grace` is how long a spent one is taken again, as a duration of
    the configuration file. `reuse_ends_grant`: whether one that comes back later ends all tokens
    of that sign-in. `revocation_ends_grant`: whether one revocation ends all that the user granted
    to our client, at every sign-in. `repeated` and `late` are the answers to a spent and to an
    expired refresh token. `dead_grant` are further words for an ended grant, as in
    `deadGrantErrors`.
    """

    rotation: Literal["always", "never", "a setting", "no refresh tokens"]
    spends: bool
    reuse_grace: str = ""
    reuse_ends_grant: bool | None = None
    revocation_ends_grant: bool | None = None
    access_lasts: str = ""
    refresh_lasts: str = ""
    repeated: str = ""
    late: str = ""
    dead_grant: tuple[str, ...] = ()

    def members(self) -> dict[str, Any]:
        """The members of the configuration file that follow from it."""
        members: dict[str, Any] = {}
        if not self.spends:
            members["rotatesRefreshTokens"] = False
        if self.reuse_grace:
            members["refreshTokenReuseGrace"] = self.reuse_grace
        if self.revocation_ends_grant:
            members["revocationEndsGrant"] = True
        if self.dead_grant:
            members["deadGrantErrors"] = list(self.dead_grant)
        return members


class Provider(Value, frozen=True, kw_only=True):
    """`settings` are members of the configuration file, `apis` what Attach may call.

    `issuer_form` is how the operator's own issuer looks, where the preset has none. `subject` says
    in words where the user's identifier is. `pkce` is what its pages say of RFC 7636.
    `api_base_urls` are those of APIs that Attach does not call. `api_headers` are headers that its
    APIs want from the caller. `notes` are what an operator has to know beside.
    """

    settings: Mapping[str, Any]
    refresh: Refresh
    sources: tuple[Source, ...]
    subject: str
    pkce: str = ""
    issuer_form: str = ""
    apis: tuple[Mapping[str, Any], ...] = ()
    api_base_urls: tuple[str, ...] = ()
    api_headers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def members(self) -> dict[str, Any]:
        """What `preset: NAME` stands for, apart from `apis`."""
        return {**self.settings, **self.refresh.members()}
