"""What an operator says of clients: who may introduce themselves, and whom we know."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from authserver.config.value_types import Network, ReadableFile, SecretFile, WebUrl
from authserver.oauth.parsing import Malformed, json_object
from authserver.oauth.redirect_uris import InvalidRedirect, check_registrable
from chassis.config_types import Model


class Switch(Model):
    enabled: bool = False


class MetadataDocuments(Model):
    """Clients known by a URL. `deniedNetworks` are never called, beside all that is not public."""

    enabled: bool = True
    denied_networks: tuple[Network, ...] = ()


class StaticClient(Model):
    client_id: str
    client_name: str = ""
    redirect_uris: Annotated[tuple[str, ...], Field(min_length=1)]
    token_endpoint_auth_method: Literal[
        "none", "client_secret_basic", "client_secret_post", "private_key_jwt"
    ] = "client_secret_basic"
    client_secret_file: SecretFile | None = None
    jwks_file: ReadableFile | None = None
    jwks_uri: WebUrl | None = None

    def jwks(self) -> dict[str, Any] | None:
        """The client's public keys, where they come from a file."""
        return json_object(self.jwks_file.read_bytes()) if self.jwks_file is not None else None

    @field_validator("jwks_file")
    @classmethod
    def _is_a_key_set(cls, file: Path | None) -> Path | None:
        if file is not None:
            try:
                keys = json_object(file.read_bytes()).get("keys")
            except Malformed:
                keys = None
            if not isinstance(keys, list):
                raise ValueError(f"{file}: not a JWK Set")
        return file

    @field_validator("redirect_uris")
    @classmethod
    def _registrable(cls, uris: tuple[str, ...]) -> tuple[str, ...]:
        for uri in uris:
            try:
                check_registrable(uri)
            except InvalidRedirect as error:
                raise ValueError(f"{uri}: {error}") from None
        return uris

    @model_validator(mode="after")
    def _secret_where_the_method_needs_one(self) -> Self:
        method = self.token_endpoint_auth_method
        if method.startswith("client_secret") != (self.client_secret_file is not None):
            raise ValueError("clientSecretFile goes with the client_secret methods, and only there")
        keys = [source for source in (self.jwks_file, self.jwks_uri) if source is not None]
        if len(keys) != (method == "private_key_jwt"):
            raise ValueError("private_key_jwt, and only it, needs one of jwksFile and jwksUri")
        return self


class Clients(Model):
    registration: Switch = Switch(enabled=True)
    metadata_documents: MetadataDocuments = MetadataDocuments()
    static: tuple[StaticClient, ...] = ()
