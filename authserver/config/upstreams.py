"""What an operator says of an upstream."""

import re
from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AwareDatetime, Field, field_validator, model_validator

from authserver.config.upstream_apis import Apis, check_fits_into_an_answer
from authserver.config.upstream_ca import certificates_of, problems_of
from authserver.config.value_types import Duration, ReadableFile, SecretFile, UpstreamName, WebUrl
from chassis.config_types import Model, Scope, matches_pattern
from chassis.secret_file import read_secret

_RESERVED_PARAMETERS: Final = frozenset(
    {
        "client_id", "client_secret", "code_challenge", "code_challenge_method", "nonce",
        "redirect_uri", "request", "request_uri", "response_mode", "response_type", "scope",
        "state",
    }
)  # fmt: skip


_WORDS: Final = re.compile(r"[^\x00-\x1f\x7f]+")
_IN_WORDS: Final = "a text on one line"
_RESERVED_TOKEN_PARAMETERS: Final = frozenset(
    {
        "client_assertion", "client_assertion_type", "client_id", "client_secret", "code",
        "code_verifier", "grant_type", "redirect_uri", "refresh_token",
    }
)  # fmt: skip
_PARAMETER: Final = re.compile(r"[a-z_]{1,64}", re.ASCII)
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_VISIBLE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?", re.ASCII)
_IN_VISIBLE: Final = "printable ASCII"
# What authenticates, frames or routes a request is ours alone.
_RESERVED_HEADERS: Final = frozenset(
    {
        "accept", "accept-encoding", "authorization", "connection", "content-length",
        "content-type", "cookie", "expect", "host", "keep-alive", "proxy-authorization", "te",
        "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
# Issuers of Microsoft that stand for many tenants; their documents and ID tokens name one.
_OF_MANY_TENANTS: Final = ("common", "organizations", "consumers")

DeadGrantError = Annotated[
    str,
    matches_pattern(
        re.compile(r"[!-~]{1,100}(=[ -~]{1,100})?"),
        "a word of the answer's error member, or member=value",
    ),
]


def _proxy_url(url: str) -> str:
    """An HTTP proxy, which tunnels TLS for us; without a user, who would be a secret."""
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "http" and bool(parts.hostname) and parts.port is not None
    except ValueError:
        plain = False
    if not plain or "@" in url or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("must be an HTTP proxy such as http://proxy.example.com:3128")
    return url


class FormerRegistration(Model):
    """A client that this one replaced; its connections go on being used until `until`.

    `issuer` (oidc) or `tokenEndpoint` (oauth2) where that was another one too.
    """

    client_id: str
    client_secret_file: SecretFile | None = None
    issuer: WebUrl | None = None
    token_endpoint: WebUrl | None = None
    until: AwareDatetime

    @property
    def ends_at(self) -> float:
        """Seconds since the Unix epoch."""
        return self.until.timestamp()


class UpstreamBase(Apis):
    """What every upstream has, whether its users sign in there or its tokens are exchanged.

    `caFile` holds the authorities this upstream's certificate is verified with, alone.
    `displayName` and `scopeDescriptions` (scope to words) are for the pages that people read.
    `proxy`: calls to this upstream go through it. `apis`: what Attach may call.
    """

    name: UpstreamName
    display_name: Annotated[str, Field(max_length=64), matches_pattern(_WORDS, _IN_WORDS)] = ""
    scope_descriptions: dict[
        str, Annotated[str, Field(max_length=200), matches_pattern(_WORDS, _IN_WORDS)]
    ] = Field(default_factory=dict)
    preset: str | None = None
    client_secret_file: SecretFile | None = None
    client_authentication: Literal["basic", "body"] | None = None
    scopes: tuple[Scope, ...] = ()
    token_parameters: dict[str, str] = Field(default_factory=dict)
    refresh_parameters: dict[str, str] = Field(default_factory=dict)
    ca_file: ReadableFile | None = None
    proxy: str | None = None
    dead_grant_errors: tuple[DeadGrantError, ...] = ()

    @property
    def names_its_user(self) -> bool:
        """Whether it says who signed in, so that it can be a resource's first upstream."""
        return True

    @property
    def askable_scopes(self) -> tuple[str, ...]:
        """Scopes that a server may have its user asked for."""
        return ()

    @field_validator("token_parameters", "refresh_parameters")
    @classmethod
    def _only_more_of_a_token_request(cls, parameters: dict[str, str]) -> dict[str, str]:
        return _without(_RESERVED_TOKEN_PARAMETERS, parameters)

    @field_validator("proxy")
    @classmethod
    def _is_an_http_proxy(cls, url: str | None) -> str | None:
        return _proxy_url(url) if url is not None else None

    @field_validator("ca_file")
    @classmethod
    def _holds_authorities(cls, file: Path | None) -> Path | None:
        if file is not None and (problems := problems_of(file.read_bytes())):
            raise ValueError(f"{file}: {'; '.join(problems)}")
        return file

    @model_validator(mode="after")
    def _fits_into_an_answer(self) -> Self:
        check_fits_into_an_answer(self.answered_apis())
        return self

    def answered_apis(self) -> list[dict[str, Any]]:
        """What an exchange answer says of `apis`, with the file's authorities as they are now.

        `base_url` is None where it depends on the account.
        """
        ca = None if self.ca_file is None else certificates_of(self.ca_file.read_bytes())
        return [api.answered(ca, self.askable_scopes) for api in self.apis]

    def client_secret(self) -> str | None:
        """The file's content without the final newline."""
        if self.client_secret_file is None:
            return None
        return read_secret(self.client_secret_file)

    def secrets(self) -> tuple[str | None, ...]:
        """The client secrets of this upstream, as the files are now."""
        return (self.client_secret(),)


class _Upstream(UpstreamBase):
    """An upstream at which users sign in.

    `revocationEndsGrant`: one revocation, or one reuse of a refresh token, ends all that the user
    granted to our client. `stepUpScopes`: what a server may have its user asked for beyond
    `scopes`. `exchangeOnly`: its own tokens are released to nobody, only what is made of them.
    """

    client_id: str
    exchange_only: bool = False
    step_up_scopes: tuple[Scope, ...] = ()
    authorize_parameters: dict[str, str] = Field(default_factory=dict)
    response_mode: Literal["query", "form_post"] = "query"
    rotates_refresh_tokens: bool = True
    refresh_token_reuse_grace: Annotated[Duration, Field(le=86400)] = 0
    revocation_ends_grant: bool = False
    repeat_uncertain_refresh: bool | None = None
    former: tuple[FormerRegistration, ...] = ()

    @property
    def askable_scopes(self) -> tuple[str, ...]:
        return (*self.scopes, *self.step_up_scopes)

    @property
    def may_repeat_uncertain_refresh(self) -> bool:
        """Whether a refresh token of unknown fate is presented again."""
        if self.repeat_uncertain_refresh is not None:
            return self.repeat_uncertain_refresh
        return not self.revocation_ends_grant

    @field_validator("authorize_parameters")
    @classmethod
    def _only_more(cls, parameters: dict[str, str]) -> dict[str, str]:
        return _without(_RESERVED_PARAMETERS, parameters)

    def secrets(self) -> tuple[str | None, ...]:
        """The client secrets of this and every former registration, as the files are now."""
        return (
            self.client_secret(),
            *(self.as_registered(one).client_secret() for one in self.former),
        )

    def as_registered(self, former: FormerRegistration) -> Self:
        """This upstream as it was under a former registration."""
        changes: dict[str, Any] = {
            "client_id": former.client_id,
            "client_secret_file": former.client_secret_file,
            "former": (),
        }
        return self.model_copy(update=changes | self._endpoints_of(former))

    @abstractmethod
    def _endpoints_of(self, former: FormerRegistration) -> dict[str, Any]:
        """The members that say where a former registration's tokens came from."""


def _without(reserved: frozenset[str], parameters: dict[str, str]) -> dict[str, str]:
    if ours := sorted(reserved & parameters.keys()):
        raise ValueError(f"{', '.join(ours)}: set by us, and not to be replaced")
    return parameters


class OidcUpstream(_Upstream):
    type: Literal["oidc"]
    issuer: WebUrl
    scopes: tuple[Scope, ...] = ("openid",)

    @field_validator("scopes")
    @classmethod
    def _asks_for_an_id_token(cls, scopes: tuple[str, ...]) -> tuple[str, ...]:
        if "openid" not in scopes:
            raise ValueError("must contain openid: without it there is no ID token")
        return scopes

    @field_validator("issuer")
    @classmethod
    def _names_one_tenant(cls, issuer: str) -> str:
        parts = urlsplit(issuer)
        tenant = parts.path.strip("/").partition("/")[0]
        if parts.hostname == "login.microsoftonline.com" and tenant in _OF_MANY_TENANTS:
            raise ValueError(
                f"{tenant} stands for many tenants: put the tenant's ID or domain in its place"
            )
        return issuer

    @field_validator("former")
    @classmethod
    def _formerly_by_issuer(
        cls, former: tuple[FormerRegistration, ...]
    ) -> tuple[FormerRegistration, ...]:
        if any(one.token_endpoint is not None for one in former):
            raise ValueError("an oidc upstream is found by its issuer: tokenEndpoint is for oauth2")
        return former

    def _endpoints_of(self, former: FormerRegistration) -> dict[str, Any]:
        return {"issuer": former.issuer or self.issuer}


class OAuth2Upstream(_Upstream):
    type: Literal["oauth2"]
    authorization_endpoint: WebUrl
    token_endpoint: WebUrl
    userinfo_endpoint: WebUrl | None = None
    subject_from: Literal["userinfo", "token", "idToken"] = "userinfo"
    subject_field: str | tuple[str, ...] | None = None
    refresh_endpoint: WebUrl | None = None
    revocation_endpoint: WebUrl | None = None
    revocation_sends: Literal["refreshToken", "accessToken", "both", "bearer"] = "refreshToken"
    revocation_parameter: Annotated[str, matches_pattern(_PARAMETER, "a parameter's name")] = (
        "token"
    )
    revocation_method: Literal["POST", "DELETE"] = "POST"
    scope_parameter: Literal["scope", "user_scope"] = "scope"
    scope_separator: Literal[" ", ","] = " "
    answered_scope_separator: Literal[" ", ","] = " "
    answered_scope_member: Annotated[str, matches_pattern(_PARAMETER, "a member's name")] = "scope"
    token_path: str | None = None
    token_types: tuple[str, ...] = ("bearer",)
    request_format: Literal["form", "json"] = "form"
    request_headers: dict[
        str, Annotated[str, Field(max_length=256), matches_pattern(_VISIBLE, _IN_VISIBLE)]
    ] = Field(default_factory=dict)

    @field_validator("request_headers")
    @classmethod
    def _only_more_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if not _HEADER.fullmatch(name):
                raise ValueError(f"{name!r}: is not a header's name")
        return _without(_RESERVED_HEADERS, {name.lower(): text for name, text in headers.items()})

    @field_validator("former")
    @classmethod
    def _formerly_by_token_endpoint(
        cls, former: tuple[FormerRegistration, ...]
    ) -> tuple[FormerRegistration, ...]:
        if any(one.issuer is not None for one in former):
            raise ValueError("an oauth2 upstream has no issuer: tokenEndpoint names the former one")
        return former

    def _endpoints_of(self, former: FormerRegistration) -> dict[str, Any]:
        return {"token_endpoint": former.token_endpoint or self.token_endpoint}

    @property
    def names_its_user(self) -> bool:
        source = self.userinfo_endpoint is not None or self.subject_from != "userinfo"
        return source and bool(self.subject_fields)

    @property
    def subject_fields(self) -> tuple[str, ...]:
        """Where the user's name stands, as dotted paths; several make one name together."""
        fields = self.subject_field
        return (fields,) if isinstance(fields, str) else fields or ()


AnyUpstream = OidcUpstream | OAuth2Upstream
