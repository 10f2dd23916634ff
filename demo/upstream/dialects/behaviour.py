"""The shape in which a provider's behaviour is written down."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

FOREVER: Final = math.inf


@dataclass(frozen=True)
class Person:
    """Somebody with an account at the provider; `group` is their team, workspace or portal."""

    id: str
    group: str
    name: str


@dataclass(frozen=True)
class Issued:
    """One answer of a token endpoint, before a provider gives it its shape.

    `refresh_token` is None where this answer brings none. `scopes` are the granted ones.
    """

    person: Person
    access_token: str
    refresh_token: str | None
    scopes: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """A status and a JSON object."""

    status: int
    body: Mapping[str, Any]


Shape = Callable[[Issued], dict[str, Any]]
_REFUSED: Final = Answer(400, {"error": "invalid_grant"})


def standard(lifetime: int | None, *, separator: str = " ", kind: str = "Bearer") -> Shape:
    """An answer of RFC 6749 section 5.1."""

    def shape(issued: Issued) -> dict[str, Any]:
        answer: dict[str, Any] = {"access_token": issued.access_token, "token_type": kind}
        if lifetime is not None:
            answer["expires_in"] = lifetime
        if issued.refresh_token is not None:
            answer["refresh_token"] = issued.refresh_token
        return answer | {"scope": separator.join(issued.scopes)}

    return shape


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """One provider, or one way in which it can be set up. Addresses are `HOST/PATH`.

    Endpoints: `issuer` is set where it speaks OpenID Connect and is found by discovery. ID tokens
    name it, or `names_issuer` of their person; `claims` are further ones. `refresh` is where
    refresh tokens go, if not to `token`. `credentials` are the client authentications it takes.
    `wants_headers` are required at every endpoint of ours. `checks_pkce`: a code that came with a
    challenge needs its verifier.

    Authorization: `wants` are parameters without which it refuses. `offline` are parameters, and
    `offline_scope` a scope, without which it gives no refresh token.

    Answers: `first` and `again` give a code's and a refresh's answer its shape. `lifetime` is
    that of access tokens in seconds, None for no end.

    Refresh: `rotates`: an answer brings a new refresh token. `spent_lives` is for how many seconds
    a refresh token goes on being taken after its use. `reuse_ends_grant`: one that comes later
    ends all. `ends_access_token`: a refresh ends the access token before it. `idle` is after how
    many seconds without use a refresh token is over.

    Refusals: `refused` is for a refresh token that is not taken, `bad_client` for a wrong secret,
    `bad_token` for an access token that `userinfo` does not take.

    Revocation: `revocation` is its address, `revokes` what it takes, `revoked` its answer.
    `revocation_ends` is what ends: the `grant`, every grant of the `person`, or only the `token`.
    With `revocation_method` DELETE it wants JSON and Basic credentials.
    """

    source: str
    authorize: str
    token: str
    refresh: str = ""
    issuer: str = ""
    names_issuer: Callable[[Person], str] | None = None
    claims: Callable[[Person], Mapping[str, Any]] = field(default=lambda _: {})
    userinfo: str = ""
    person: Callable[[Person], Mapping[str, Any]] = field(default=lambda one: {"sub": one.id})
    credentials: tuple[Literal["basic", "body"], ...] = ("basic", "body")
    written_as: Literal["form", "json"] = "form"
    wants_headers: tuple[str, ...] = ()
    checks_pkce: bool = True

    wants: Mapping[str, str] = field(default_factory=dict)
    offline: Mapping[str, str] = field(default_factory=dict)
    offline_scope: str = ""
    scope_parameter: str = "scope"
    scope_separator: str = " "
    gives_refresh_token: bool = True

    first: Shape
    again: Shape
    lifetime: int | None

    rotates: bool = True
    spent_lives: float = 0
    reuse_ends_grant: bool = False
    ends_access_token: bool = False
    idle: float = FOREVER

    refused: Answer = _REFUSED
    bad_client: Answer = Answer(401, {"error": "invalid_client"})
    bad_token: Answer = Answer(401, {"error": "invalid_token"})

    revocation: str = ""
    revokes: Literal["refresh or access", "refresh", "access", "bearer"] = "refresh or access"
    revocation_parameter: str = "token"
    revocation_method: Literal["POST", "DELETE"] = "POST"
    revoked: Answer = Answer(200, {})
    not_revoked: Answer = Answer(400, {"error": "invalid_request"})
    revocation_ends: Literal["token", "grant", "person"] = "grant"
