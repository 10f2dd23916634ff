"""The operator's settings: frozen, typed, each member checked by itself.

File paths are taken relative to the configuration file, and what they hold is checked here too,
so that a missing key is one more line in the report and not a crash later.
"""

import re
import ssl
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from authserver.keys import SigningKey, load_signing_key
from authserver.parsing import Malformed, json_object
from authserver.redirects import InvalidRedirect, check_registrable
from authserver.resources import InvalidResource, canonical
from authserver.storage.location import PostgresqlLocation, SqliteLocation, read_location
from authserver.storage.sealing import read_key
from chassis.spiffe_id import Workload, is_dns_label, is_trust_domain

_DURATION: Final = re.compile(r"([1-9][0-9]{0,8})(s|m|h|d)", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_UPSTREAM_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,31})", re.ASCII)
_SCOPE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+", re.ASCII)
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


def _duration(value: object) -> int:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a number with a unit, such as 60s, 15m, 8h or 30d")
    return int(match[1]) * _SECONDS[match[2]]


def _readable(file: Path, info: ValidationInfo) -> Path:
    resolved = Path((info.context or {}).get("folder", ".")) / file
    try:
        if not resolved.read_bytes().strip():
            raise ValueError(f"{resolved} is empty")
    except OSError as error:
        raise ValueError(f"{resolved}: {(error.strerror or 'not readable').lower()}") from None
    return resolved


def _holds_text(file: Path) -> Path:
    try:
        file.read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{file}: must be text in UTF-8") from None
    return file


def _checked_by(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(text: str) -> str:
        if pattern.fullmatch(text) is None:
            raise ValueError(f"must be {what}")
        return text

    return AfterValidator(check)


def _web_url(text: str) -> str:
    """An https URL, or http on loopback, in printable ASCII, without fragment or user."""
    problem = "must be a plain URL without fragment or user information"
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError(problem) from None
    if not text.isascii() or not text.isprintable() or "#" in text or "@" in parts.netloc:
        raise ValueError(problem)
    if not (parts.scheme == "https" and parts.hostname) and not _on_loopback(text):
        raise ValueError("must start with https:// (http:// is for loopback only)")
    return text


def _network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError:
        raise ValueError("is not a network such as 10.0.0.0/8") from None
    return text


def _on_loopback(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in _LOOPBACK


Duration = Annotated[int, BeforeValidator(_duration)]
ReadableFile = Annotated[Path, AfterValidator(_readable)]
SecretFile = Annotated[ReadableFile, AfterValidator(_holds_text)]
Network = Annotated[str, AfterValidator(_network)]
WebUrl = Annotated[str, AfterValidator(_web_url)]
Port = Annotated[int, Field(ge=0, le=65535)]
UpstreamName = Annotated[
    str, _checked_by(_UPSTREAM_NAME, "lower-case letters, digits and hyphens, at most 32")
]
Scope = Annotated[str, _checked_by(_SCOPE, "a scope token (RFC 6749 section 3.3)")]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        hide_input_in_errors=True,
        strict=False,
    )


class Tls(_Model):
    cert_file: ReadableFile
    key_file: ReadableFile


class PublicListener(_Model):
    host: str
    port: Port
    tls: Tls | None = None
    behind_tls_proxy: bool = Field(False, alias="behindTLSProxy")
    trusted_proxies: tuple[Network, ...] = ()

    @model_validator(mode="after")
    def _no_plain_http_in_the_open(self) -> Self:
        if self.tls is None and not self.behind_tls_proxy and self.host not in _LOOPBACK:
            raise ValueError(
                "plain http is for loopback: set tls, or behindTLSProxy where a proxy ends TLS"
            )
        return self


class InternalListener(_Model):
    host: str
    port: Port
    cert_file: ReadableFile
    key_file: ReadableFile
    client_ca_file: ReadableFile = Field(alias="clientCAFile")


class OpsListener(_Model):
    host: str
    port: Port


class Listeners(_Model):
    public: PublicListener
    internal: InternalListener
    ops: OpsListener


class StorageSettings(_Model):
    """`replicas` says how many authservers share this storage; the manifests know it."""

    url: str
    password_file: ReadableFile | None = None
    replicas: Annotated[int, Field(ge=1)] = 1

    @field_validator("url")
    @classmethod
    def _readable_url(cls, url: str) -> str:
        location = read_location(url)
        ca_file = location.ca_file if isinstance(location, PostgresqlLocation) else None
        if ca_file is not None and not ca_file.is_file():
            raise ValueError(f"sslrootcert: {ca_file} is not a file")
        return url

    @model_validator(mode="after")
    def _what_goes_with_the_engine(self) -> Self:
        if isinstance(read_location(self.url), SqliteLocation):
            if self.password_file is not None:
                raise ValueError("passwordFile is for postgresql://")
            if self.replicas > 1:
                raise ValueError("SQLite is for one replica; more of them need postgresql://")
        return self

    def password(self) -> str:
        """The file's content without the final newline, as it is now; empty without a file."""
        if self.password_file is None:
            return ""
        return self.password_file.read_text("utf-8").removesuffix("\n")


class EncryptionKey(_Model):
    id: Annotated[
        str, _checked_by(re.compile(r"[A-Za-z0-9._-]{1,64}"), "1 to 64 of A-Z a-z 0-9 . _ -")
    ]
    file: ReadableFile

    @field_validator("file")
    @classmethod
    def _is_a_key(cls, file: Path) -> Path:
        try:
            read_key(file.read_text("ascii"))
        except (UnicodeDecodeError, ValueError) as error:
            problem = "not base64" if isinstance(error, UnicodeDecodeError) else error
            raise ValueError(f"{file}: must hold 32 random bytes in base64: {problem}") from None
        return file

    def key(self) -> bytes:
        return read_key(self.file.read_text("ascii"))


class SigningKeyFile(_Model):
    """`announced`: in the JWKS, signs nothing yet; `retiredAt`: signed nothing after that."""

    file: ReadableFile
    algorithm: Literal["ES256", "RS256", "EdDSA"] = "ES256"
    announced: bool = False
    retired_at: AwareDatetime | None = None

    def signing_key(self) -> SigningKey:
        return replace(
            load_signing_key(self.file, self.algorithm),
            announced=self.announced,
            retired_at=self.retired_at.timestamp() if self.retired_at else None,
        )

    @model_validator(mode="after")
    def _is_a_key(self) -> Self:
        try:
            load_signing_key(self.file, self.algorithm)
        except ValueError as error:
            raise ValueError(f"{self.file}: {error}") from None
        return self


# What an authorization request of ours says by itself.
_RESERVED_PARAMETERS: Final = frozenset(
    {
        "client_id", "client_secret", "code_challenge", "code_challenge_method", "nonce",
        "redirect_uri", "request", "request_uri", "response_mode", "response_type", "scope",
        "state",
    }
)  # fmt: skip


class _Upstream(_Model):
    """`caFile` holds the authorities this upstream's certificate is verified with, alone."""

    name: UpstreamName
    preset: str | None = None
    client_id: str
    client_secret_file: SecretFile | None = None
    client_authentication: Literal["basic", "body"] | None = None
    scopes: tuple[Scope, ...] = ()
    authorize_parameters: dict[str, str] = {}
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
        return self.client_secret_file.read_text("utf-8").removesuffix("\n")


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


class WorkloadName(_Model):
    namespace: str
    name: str

    @field_validator("namespace", "name")
    @classmethod
    def _label(cls, text: str) -> str:
        if not is_dns_label(text):
            raise ValueError("must be a DNS-1123 label")
        return text

    def workload(self) -> Workload:
        return Workload(self.namespace, self.name)


class ResourceSettings(_Model):
    resource: str
    workload: WorkloadName
    upstreams: Annotated[tuple[UpstreamName, ...], Field(min_length=1)]
    scopes: tuple[Scope, ...] = ()

    @field_validator("resource")
    @classmethod
    def _is_a_resource(cls, resource: str) -> str:
        try:
            canonical(resource)
        except InvalidResource as error:
            raise ValueError(str(error)) from None
        return resource


class AllowedWorkloads(_Model):
    """Whom the internal listener serves at all. `"*"` must be written out; empty means nobody."""

    namespaces: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def admit(self, workload: Workload) -> bool:
        return _listed(workload.namespace, self.namespaces) and _listed(workload.name, self.names)


def _listed(label: str, allowed: tuple[str, ...]) -> bool:
    return "*" in allowed or label in allowed


class DeniedCertificates(_Model):
    """Certificates turned away although their CA is trusted."""

    serials: tuple[str, ...] = ()
    spiffe_ids: tuple[str, ...] = ()

    @field_validator("serials")
    @classmethod
    def _one_spelling(cls, serials: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(serial.replace(":", "").lstrip("0").upper() for serial in serials)


class Switch(_Model):
    enabled: bool = False


class MetadataDocuments(_Model):
    """Clients known by a URL. `deniedNetworks` are never called, beside all that is not public."""

    enabled: bool = True
    denied_networks: tuple[Network, ...] = ()


class StaticClient(_Model):
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


class Clients(_Model):
    registration: Switch = Switch(enabled=True)
    metadata_documents: MetadataDocuments = MetadataDocuments()
    static: tuple[StaticClient, ...] = ()


class PageSettings(_Model):
    """`styleFile` is CSS that comes after ours, on every page."""

    style_file: ReadableFile | None = None

    def style(self) -> bytes:
        return self.style_file.read_bytes() if self.style_file is not None else b""


class Lifetimes(_Model):
    access_token: Annotated[Duration, Field(ge=60, le=86400)] = 15 * 60
    authorization_code: Annotated[Duration, Field(ge=10, le=600)] = 60
    refresh_token_idle: Duration = 30 * 86400
    refresh_token_absolute: Duration = 90 * 86400
    browser_session: Annotated[Duration, Field(le=30 * 86400)] = 8 * 3600
    remembered_consent: Annotated[Duration, Field(le=365 * 86400)] = 30 * 86400
    workload_certificate: Annotated[Duration, Field(le=90 * 86400)] = 86400


class Limits(_Model):
    releases_per_workload_per_second: Annotated[int, Field(ge=1)] = 50
    failed_tokens_per_workload_per_minute: Annotated[int, Field(ge=1)] = 10
    registrations_per_source_per_minute: Annotated[int, Field(ge=1)] = 10
    registrations_per_minute: Annotated[int, Field(ge=1)] = 600
    unused_registrations: Annotated[int, Field(ge=1)] = 10_000
    metadata_documents_per_host_per_minute: Annotated[int, Field(ge=1)] = 30
    metadata_documents_per_minute: Annotated[int, Field(ge=1)] = 300
    failed_authentications_per_source_per_minute: Annotated[int, Field(ge=1)] = 30
    sign_ins_per_source_per_minute: Annotated[int, Field(ge=1)] = 600
    token_requests_per_client_and_source_per_minute: Annotated[int, Field(ge=1)] = 600
    connections_per_source: Annotated[int, Field(ge=1)] = 200
    connections: Annotated[int, Field(ge=1)] = 4000


# What takes effect without a restart.
RELOADABLE: Final = frozenset(
    {
        "encryption_keys",
        "signing_keys",
        "upstreams",
        "resources",
        "allowed_workloads",
        "denied_certificates",
    }
)


class Settings(_Model):
    """The whole file, checked."""

    issuer: WebUrl
    trust_domain: str
    listeners: Listeners
    storage: StorageSettings
    encryption_keys: Annotated[tuple[EncryptionKey, ...], Field(min_length=1)]
    signing_keys: Annotated[tuple[SigningKeyFile, ...], Field(min_length=1)]
    upstreams: tuple[Upstream, ...] = ()
    resources: tuple[ResourceSettings, ...] = ()
    allowed_workloads: AllowedWorkloads = AllowedWorkloads()
    denied_certificates: DeniedCertificates = DeniedCertificates()
    clients: Clients = Clients()
    pages: PageSettings = PageSettings()
    lifetimes: Lifetimes = Lifetimes()
    limits: Limits = Limits()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("signing_keys")
    @classmethod
    def _first_signs(cls, keys: tuple[SigningKeyFile, ...]) -> tuple[SigningKeyFile, ...]:
        if keys[0].announced or keys[0].retired_at is not None:
            raise ValueError("the first key signs: it is neither announced nor retired")
        kids = [key.signing_key().kid for key in keys]
        if len(set(kids)) != len(kids):
            raise ValueError("the same key stands here twice")
        return keys

    @property
    def on_loopback(self) -> bool:
        """Whether this is a development set-up: the issuer is plain http on this machine."""
        return _on_loopback(self.issuer)

    @field_validator("issuer")
    @classmethod
    def _exact(cls, issuer: str) -> str:
        if issuer.endswith("/") or "?" in issuer:
            raise ValueError("must have no trailing slash and no query: clients compare it exactly")
        return issuer

    @field_validator("trust_domain")
    @classmethod
    def _domain(cls, text: str) -> str:
        if not is_trust_domain(text):
            raise ValueError("must be a trust domain such as example.org, without spiffe://")
        return text
