"""The operator's settings: frozen, typed, each member checked by itself."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from msgspec.structs import replace
from pydantic import (
    AwareDatetime,
    Field,
    field_validator,
    model_validator,
)

from authserver.config.clients import Clients
from authserver.config.exchanged_upstreams import Upstream
from authserver.config.listeners import Listeners
from authserver.config.resource_map import ResourceSettings
from authserver.config.value_types import Duration, Folder, ReadableFile, WebUrl, on_loopback
from authserver.config.workloads import AllowedWorkloads, DeniedCertificates
from authserver.storage.engines.url import PostgresqlLocation, SqliteLocation, read_location
from authserver.storage.keyring import Keyring, read_key
from authserver.tokens.algorithms import SigningAlgorithm
from authserver.tokens.signing_keys import SigningKey, load_signing_key
from chassis.config_types import Model, TrustDomain, matches_pattern
from chassis.secret_file import read_secret


class StorageSettings(Model):
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
        return read_secret(self.password_file)


class EncryptionKey(Model):
    id: Annotated[
        str, matches_pattern(re.compile(r"[A-Za-z0-9._-]{1,64}"), "1 to 64 of A-Z a-z 0-9 . _ -")
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


class SigningKeyFile(Model):
    """`announced`: in the JWKS, signs nothing yet; `retiredAt`: signed nothing after that."""

    file: ReadableFile
    algorithm: SigningAlgorithm = "ES256"
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


_LOGO_TYPES: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}


class PageSettings(Model):
    """`styleFile` is CSS that comes after ours. `title`, `logoFile` and `supportUrl` (https or
    mailto) are on every page.
    """

    style_file: ReadableFile | None = None
    title: Annotated[str, Field(max_length=64)] = ""
    logo_file: ReadableFile | None = None
    support_url: str = ""

    @field_validator("logo_file")
    @classmethod
    def _is_an_image(cls, file: Path | None) -> Path | None:
        if file is not None and file.suffix.lower() not in _LOGO_TYPES:
            raise ValueError(f"must be one of {', '.join(_LOGO_TYPES)}")
        return file

    @field_validator("support_url")
    @classmethod
    def _leads_to_help(cls, url: str) -> str:
        if url and re.fullmatch(r"(https://|mailto:)[\x21-\x7e]+", url) is None:
            raise ValueError("must begin with https:// or mailto:")
        return url

    def logo(self) -> tuple[bytes, str] | None:
        """The logo and its media type."""
        if self.logo_file is None:
            return None
        return self.logo_file.read_bytes(), _LOGO_TYPES[self.logo_file.suffix.lower()]

    def style(self) -> bytes:
        return self.style_file.read_bytes() if self.style_file is not None else b""


class Lifetimes(Model):
    access_token: Annotated[Duration, Field(ge=60, le=86400)] = 15 * 60
    authorization_code: Annotated[Duration, Field(ge=10, le=600)] = 60
    refresh_token_idle: Duration = 30 * 86400
    refresh_token_absolute: Duration = 90 * 86400
    browser_session: Annotated[Duration, Field(le=30 * 86400)] = 8 * 3600
    remembered_consent: Annotated[Duration, Field(le=365 * 86400)] = 30 * 86400
    workload_certificate: Annotated[Duration, Field(le=90 * 86400)] = 86400


class Limits(Model):
    releases_per_workload_per_second: Annotated[int, Field(ge=1)] = 50
    verifications_per_workload_per_second: Annotated[int, Field(ge=1)] = 1000
    failed_tokens_per_workload_per_minute: Annotated[int, Field(ge=1)] = 10
    registrations_per_source_per_minute: Annotated[int, Field(ge=1)] = 10
    registrations_per_minute: Annotated[int, Field(ge=1)] = 600
    unused_registrations: Annotated[int, Field(ge=1)] = 10_000
    metadata_documents_per_host_per_minute: Annotated[int, Field(ge=1)] = 30
    metadata_documents_per_source_per_minute: Annotated[int, Field(ge=1)] = 10
    metadata_documents_per_minute: Annotated[int, Field(ge=1)] = 300
    failed_authentications_per_source_per_minute: Annotated[int, Field(ge=1)] = 30
    sign_ins_per_source_per_minute: Annotated[int, Field(ge=1)] = 600
    token_requests_per_client_and_source_per_minute: Annotated[int, Field(ge=1)] = 600
    pending_sign_ins: Annotated[int, Field(ge=100)] = 20_000
    connections_per_source: Annotated[int, Field(ge=1)] = 200
    connections: Annotated[int, Field(ge=1)] = 4000


# What takes effect without a restart.
RELOADABLE: Final = frozenset(
    {
        "encryption_keys",
        "signing_keys",
        "upstreams",
        "resources",
        "resources_dir",
        "allowed_workloads",
        "denied_certificates",
    }
)


class Settings(Model):
    """The whole file, checked."""

    issuer: WebUrl
    trust_domain: TrustDomain
    listeners: Listeners
    storage: StorageSettings
    encryption_keys: Annotated[tuple[EncryptionKey, ...], Field(min_length=1)]
    signing_keys: Annotated[tuple[SigningKeyFile, ...], Field(min_length=1)]
    upstreams: tuple[Upstream, ...] = ()
    resources: tuple[ResourceSettings, ...] = ()
    resources_dir: Folder | None = None
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
        return on_loopback(self.issuer)

    @field_validator("issuer")
    @classmethod
    def _exact(cls, issuer: str) -> str:
        if issuer.endswith("/") or "?" in issuer:
            raise ValueError("must have no trailing slash and no query: clients compare it exactly")
        return issuer

    @property
    def resources_folder(self) -> Path | None:
        """The folder of further resources, if there is one."""
        return self.resources_dir.path if self.resources_dir is not None else None

    def keyring(self) -> Keyring:
        """The encryption keys, ready to seal with the first and to open with all."""
        return Keyring([(key.id, key.key()) for key in self.encryption_keys])
