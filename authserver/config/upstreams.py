"""What an operator says of an upstream."""

import re
import ssl
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

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


class _Upstream(Model):
    """`caFile` holds the authorities this upstream's certificate is verified with, alone.

    `displayName` and `scopeDescriptions` (scope to words) are for the pages that people read.
    """

    name: UpstreamName
    display_name: Annotated[str, Field(max_length=64), matches_pattern(_WORDS, _IN_WORDS)] = ""
    scope_descriptions: dict[
        str, Annotated[str, Field(max_length=200), matches_pattern(_WORDS, _IN_WORDS)]
    ] = Field(default_factory=dict)
    preset: str | None = None
    client_id: str
    client_secret_file: SecretFile | None = None
    client_authentication: Literal["basic", "body"] | None = None
    scopes: tuple[Scope, ...] = ()
    authorize_parameters: dict[str, str] = Field(default_factory=dict)
    response_mode: Literal["query", "form_post"] = "query"
    ca_file: ReadableFile | None = None
    rotates_refresh_tokens: bool = True
    refresh_token_reuse_grace: Annotated[Duration, Field(le=86400)] = 0

    @field_validator("authorize_parameters")
    @classmethod
    def _only_more(cls, parameters: dict[str, str]) -> dict[str, str]:
        if reserved := sorted(_RESERVED_PARAMETERS & parameters.keys()):
            raise ValueError(f"{', '.join(reserved)}: set by us, and not to be replaced")
        return parameters

    @field_validator("ca_file")
    @classmethod
    def _holds_authorities(cls, file: Path | None) -> Path | None:
        if file is not None:
            try:
                ssl.create_default_context(cafile=file)
            except (ssl.SSLError, OSError):
                raise ValueError(f"{file}: holds no certificate in PEM") from None
        return file

    def client_secret(self) -> str | None:
        """The file's content without the final newline."""
        if self.client_secret_file is None:
            return None
        return read_secret(self.client_secret_file)


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


class OAuth2Upstream(_Upstream):
    type: Literal["oauth2"]
    authorization_endpoint: WebUrl
    token_endpoint: WebUrl
    userinfo_endpoint: WebUrl | None = None
    subject_from: Literal["userinfo", "token"] = "userinfo"
    subject_field: str | tuple[str, ...] | None = None
    revocation_endpoint: WebUrl | None = None
    scope_parameter: Literal["scope", "user_scope"] = "scope"
    scope_separator: Literal[" ", ","] = " "
    answered_scope_separator: Literal[" ", ","] = " "
    token_path: str | None = None
    token_types: tuple[str, ...] = ("bearer",)

    @property
    def subject_fields(self) -> tuple[str, ...]:
        """Where the user's name stands, as dotted paths; several make one name together."""
        fields = self.subject_field
        return (fields,) if isinstance(fields, str) else fields or ()


AnyUpstream = OidcUpstream | OAuth2Upstream
Upstream = Annotated[AnyUpstream, Field(discriminator="type")]
