"""An upstream whose tokens are made out of another upstream's by an exchange (RFC 8693).

Nobody signs in there. Its tokens live on the connection of the upstream that they are made of.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from authserver.config.upstreams import OAuth2Upstream, OidcUpstream, UpstreamBase
from authserver.config.value_types import UpstreamName, WebUrl
from authserver.oauth.exchange_target import ACCESS_TOKEN_TYPE, JWT_TYPE, ExchangeTarget
from chassis.config_types import Model, Scope

_MAX_TARGETS: Final = 32
_TOKEN_TYPES: Final = {"access_token": ACCESS_TOKEN_TYPE, "jwt": JWT_TYPE}
# What we send ourselves in an exchange, beside what no token request may be given.
_OURS: Final = frozenset(
    {
        "actor_token", "actor_token_type", "audience", "requested_token_type", "resource", "scope",
        "subject_token", "subject_token_type",
    }
)  # fmt: skip


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _token_type(value: object) -> object:
    return _TOKEN_TYPES.get(value, value) if isinstance(value, str) else value


def _audience(text: str) -> str:
    if not 0 < len(text) <= 1024 or any(not "!" <= one <= "~" for one in text):
        raise ValueError("must be printable ASCII without spaces, at most 1024 characters")
    return text


def _once_each(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        raise ValueError("a value stands here twice")
    return values


_Audiences = Annotated[
    tuple[Annotated[str, AfterValidator(_audience)], ...],
    BeforeValidator(_listed),
    Field(max_length=_MAX_TARGETS),
    AfterValidator(_once_each),
]
_Resources = Annotated[
    tuple[WebUrl, ...],
    BeforeValidator(_listed),
    Field(max_length=_MAX_TARGETS),
    AfterValidator(_once_each),
]
TokenType = Annotated[
    Literal[
        "urn:ietf:params:oauth:token-type:access_token", "urn:ietf:params:oauth:token-type:jwt"
    ],
    BeforeValidator(_token_type),
]


class ExchangeSettings(Model):
    """`upstream` is the one whose token is exchanged; the other members are those of RFC 8693.

    `tokenEndpoint` and `revocationEndpoint` are its own where they are absent. `addedScopes` are
    scopes that the provider puts into every token, asked for or not.
    """

    upstream: UpstreamName
    audience: _Audiences = ()
    resource: _Resources = ()
    requested_token_type: TokenType = ACCESS_TOKEN_TYPE
    subject_token_type: TokenType = ACCESS_TOKEN_TYPE
    token_endpoint: WebUrl | None = None
    revocation_endpoint: WebUrl | None = None
    added_scopes: tuple[Scope, ...] = ()


class ExchangedUpstream(UpstreamBase):
    """`clientId` and `clientSecretFile` are those of `exchange.upstream` where both are absent."""

    type: Literal["exchange"]
    client_id: str | None = None
    exchange: ExchangeSettings

    @property
    def names_its_user(self) -> bool:
        return False

    @property
    def target(self) -> ExchangeTarget:
        """All that the operator allows to be asked for."""
        exchange = self.exchange
        return ExchangeTarget(
            exchange.audience, exchange.resource, self.scopes, exchange.requested_token_type
        )

    @field_validator("token_parameters")
    @classmethod
    def _only_more_of_an_exchange(cls, parameters: dict[str, str]) -> dict[str, str]:
        if ours := sorted(_OURS & parameters.keys()):
            raise ValueError(f"{', '.join(ours)}: set by `exchange` and `scopes`")
        return parameters

    @field_validator("scopes")
    @classmethod
    def _scopes_once_each(cls, scopes: tuple[str, ...]) -> tuple[str, ...]:
        return _once_each(scopes)

    @model_validator(mode="after")
    def _can_be_asked_for(self) -> Self:
        if not (self.exchange.audience or self.exchange.resource or self.scopes):
            raise ValueError(
                "exchange: needs an audience, a resource or scopes: without them the new token "
                "is for all that the old one is for"
            )
        if self.exchange.upstream == self.name:
            raise ValueError("exchange.upstream: an upstream is not made of itself")
        if self.preset is not None:
            raise ValueError("preset: is for an upstream at which users sign in")
        if self.client_id is None and self.exchange.token_endpoint is not None:
            raise ValueError(
                "clientId: is required beside exchange.tokenEndpoint: the secret of the other "
                "upstream's client is for its own server alone"
            )
        if self.client_id is None and self.client_secret_file is not None:
            raise ValueError("clientSecretFile: is of no client; write clientId beside it")
        return self


ConfiguredUpstream = OidcUpstream | OAuth2Upstream | ExchangedUpstream
Upstream = Annotated[ConfiguredUpstream, Field(discriminator="type")]


def typed(upstream: dict[str, Any]) -> dict[str, Any]:
    """An entry of the configuration file with its type, where `exchange` says it."""
    return {"type": "exchange", **upstream} if "exchange" in upstream else upstream


def parent_of(upstream: object) -> str | None:
    """The name under `exchange.upstream` of an entry as it is written; None where there is none."""
    exchange = upstream.get("exchange") if isinstance(upstream, Mapping) else None
    name = exchange.get("upstream") if isinstance(exchange, Mapping) else None
    return name if isinstance(name, str) else None
