"""The operator's configuration: what may be injected, and within which bounds.

Read from one YAML file and the CA file it names, checked whole, every fault reported with its
place. Paths are taken relative to the file. Listener certificates are not opened here, so that
the offline command runs without them.
"""

import hashlib
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.alias_generators import to_camel

from chassis.run import BadConfiguration, Fault
from chassis.spiffe_id import is_dns_label, is_trust_domain
from webhook.quantity import Quantity

# Annotations share 256 KiB with everything else on the object; a CA bundle is a few of these.
_MAX_CA_BYTES: Final = 64 * 1024

_IMAGE: Final = re.compile(
    r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?@sha256:[0-9a-f]{64}",
    re.ASCII,
)
_SCOPE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+", re.ASCII)
_QUALIFIED_NAME: Final = re.compile(r"[a-z0-9.-]{1,253}/[A-Za-z0-9._-]{1,63}", re.ASCII)
_DRIVER: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,61}[A-Za-z0-9])?", re.ASCII)
_CERTIFICATE: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----", re.ASCII
)


def _matching(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(text: str) -> str:
        if pattern.fullmatch(text) is None:
            raise ValueError(f"must be {what}")
        return text

    return AfterValidator(check)


def _label(text: str) -> str:
    if not is_dns_label(text):
        raise ValueError("must be a DNS-1123 label")
    return text


def _trust_domain(text: str) -> str:
    if not is_trust_domain(text):
        raise ValueError("must be a trust domain such as example.org, without spiffe://")
    return text


def _https(text: str) -> str:
    parts = urlsplit(text)
    plain = text.isascii() and text.isprintable() and not set(text) & set(' "#?@\\')
    if parts.scheme != "https" or not parts.hostname or not plain or text.endswith("/"):
        raise ValueError("must be an https URL without query, fragment or trailing slash")
    return text


def _host(text: str) -> str:
    if urlsplit(_https(text)).path:
        raise ValueError("must end after the host and port")
    return text


def _quantity(value: object) -> Quantity:
    if isinstance(value, Quantity):
        return value
    return Quantity.parse(str(value))


@dataclass(frozen=True)
class CaBundle:
    """A file of CA certificates, and what it said when the configuration was read."""

    file: Path
    pem: str


def _ca_bundle(value: object, info: ValidationInfo) -> CaBundle:
    if isinstance(value, CaBundle):
        return value
    file = Path((info.context or {}).get("folder", ".")) / str(value)
    return CaBundle(file, _read_certificates(file))


def _read_certificates(file: Path) -> str:
    """The certificates of a PEM file and nothing else of it: they become a pod's annotation."""
    try:
        text = file.read_bytes().decode("ascii")
    except OSError as error:
        raise ValueError(f"{file}: {(error.strerror or 'not readable').lower()}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not PEM") from None
    if "PRIVATE KEY" in text:
        raise ValueError(f"{file} holds a private key; every pod's author would read it")
    found = "\n".join(_CERTIFICATE.findall(text)) + "\n"
    if len(found) > _MAX_CA_BYTES:
        raise ValueError(f"{file} holds more than {_MAX_CA_BYTES} bytes of certificates")
    try:
        ssl.create_default_context(cadata=found)
    except ssl.SSLError:
        raise ValueError(f"{file} holds no certificate, or a broken one") from None
    return found


Name = Annotated[str, AfterValidator(_label)]
Https = Annotated[str, AfterValidator(_https)]
Host = Annotated[str, AfterValidator(_host)]
Port = Annotated[int, Field(ge=0, le=65535)]
Amount = Annotated[Quantity, BeforeValidator(_quantity), PlainSerializer(str)]
Scope = Annotated[str, _matching(_SCOPE, "a scope token (RFC 6749 section 3.3)")]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
    )


class Bounds(_Model):
    """What a pod gets unless it asks, and between which amounts it may ask."""

    default: Amount
    min: Amount
    max: Amount

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min.value <= self.default.value <= self.max.value:
            raise ValueError("must have min <= default <= max")
        return self


def _bounds(default: str, least: str, most: str) -> Bounds:
    return Bounds(
        default=Quantity.parse(default), min=Quantity.parse(least), max=Quantity.parse(most)
    )


class Profile(_Model):
    """A named way to inject; pods choose one of these and nothing beyond it."""

    cpu_request: Bounds = _bounds("10m", "1m", "500m")
    cpu_limit: Bounds = _bounds("200m", "50m", "2")
    memory_request: Bounds = _bounds("48Mi", "16Mi", "256Mi")
    memory_limit: Bounds = _bounds("96Mi", "48Mi", "512Mi")
    scopes: tuple[Scope, ...] = ()
    # Of no image we know; null where the cluster hands out user ids itself (OpenShift).
    run_as_user: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = 15500
    allow_shared_process_namespace: bool = False

    @cached_property
    def defaults(self) -> dict[str, Quantity]:
        """The amounts of a pod that asks for none, by their names in annotations."""
        return {
            "cpu-request": self.cpu_request.default,
            "cpu-limit": self.cpu_limit.default,
            "memory-request": self.memory_request.default,
            "memory-limit": self.memory_limit.default,
        }

    @cached_property
    def resources(self) -> dict[str, dict[str, str]]:
        """The same as a container's `resources`."""
        return {
            "requests": {
                "cpu": self.cpu_request.default.text,
                "memory": self.memory_request.default.text,
            },
            "limits": {
                "cpu": self.cpu_limit.default.text,
                "memory": self.memory_limit.default.text,
            },
        }

    @model_validator(mode="after")
    def _requests_fit(self) -> Self:
        for name, request, limit in (
            ("cpu", self.cpu_request, self.cpu_limit),
            ("memory", self.memory_request, self.memory_limit),
        ):
            if request.default.value > limit.default.value:
                raise ValueError(f"the default {name} request is above the default limit")
        return self


class SecretIdentity(_Model):
    """The credential lies in the Secret `<server>-tokenward` of the pod's namespace."""

    source: Literal["secret"] = "secret"


class PodCertificateIdentity(_Model):
    """The kubelet has a signer certify a key it makes for this one pod."""

    source: Literal["podCertificate"]
    signer_name: Annotated[str, _matching(_QUALIFIED_NAME, "domain/name of a signer")] = (
        "tokenward.dev/workload"
    )
    max_expiration_seconds: Annotated[int, Field(ge=3600, le=7862400)] = 86400


class CsiIdentity(_Model):
    """A CSI driver hands out the credential.

    Attribute values may hold `{namespace}`, `{server}` and `{spiffeId}`.
    """

    source: Literal["csi"]
    driver: Annotated[str, _matching(_DRIVER, "the name of a CSI driver")]
    attributes: dict[str, str] = Field(default_factory=dict)


Identity = Annotated[
    SecretIdentity | PodCertificateIdentity | CsiIdentity, Field(discriminator="source")
]


class Authserver(_Model):
    """Where sidecars exchange tokens: the internal listener, and the CA its certificate is of."""

    url: Host
    ca_file: Annotated[CaBundle, BeforeValidator(_ca_bundle)]


class WebhookListener(_Model):
    host: str = "0.0.0.0"
    port: Port = 10250
    cert_file: Path = Path("/var/run/tokenward/serving/tls.crt")
    key_file: Path = Path("/var/run/tokenward/serving/tls.key")
    # How long to go on serving after the signal, until every API server has moved on.
    linger_seconds: Annotated[float, Field(ge=0, le=60)] = 10.0


class OpsListener(_Model):
    host: str = "0.0.0.0"
    port: Port = 9090


class Listeners(_Model):
    webhook: WebhookListener = WebhookListener()
    ops: OpsListener = OpsListener()


class Settings(_Model):
    """The whole file, checked."""

    image: Annotated[
        str, _matching(_IMAGE, "an image pinned by digest: registry/name@sha256:<64 hex digits>")
    ]
    trust_domain: Annotated[str, AfterValidator(_trust_domain)]
    issuer: Https
    authserver: Authserver
    identity: Identity = SecretIdentity()
    profiles: dict[Name, Profile] = Field(default_factory=lambda: {"default": Profile()})
    never_inject: frozenset[Name] = frozenset({"tokenward-system"})
    listeners: Listeners = Listeners()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _has_a_default_profile(self) -> Self:
        if "default" not in self.profiles:
            raise ValueError("profiles must contain one named default")
        return self

    @cached_property
    def config_hashes(self) -> dict[str, str]:
        """For each profile, what identifies the configuration a pod was injected under."""
        parts = {"image", "trust_domain", "issuer", "identity"}
        at = self.authserver
        shared = f"{self.model_dump_json(include=parts)} {at.url} {at.ca_file.pem}"
        return {
            name: hashlib.sha256(f"{shared} {profile.model_dump_json()}".encode()).hexdigest()[:16]
            for name, profile in self.profiles.items()
        }


def load(file: Path) -> Settings:
    """Read and check the configuration in `file`. Raises BadConfiguration with every fault."""
    raw = _read(file)
    return check(raw, file.resolve().parent)


def check(raw: dict[str, Any], folder: Path) -> Settings:
    """Check a configuration already read; paths in it are relative to `folder`."""
    try:
        return Settings.model_validate(raw, context={"folder": folder})
    except ValidationError as invalid:
        raise BadConfiguration(sorted(set(_faults_within(invalid)))) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        problem = (error.strerror or "unreadable").lower()
        raise BadConfiguration([Fault(str(file), problem)]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "it"
        raise BadConfiguration([Fault(str(file), f"{where} is not YAML")]) from None
    if not isinstance(raw, dict):
        raise BadConfiguration([Fault(str(file), "is not a YAML mapping")])
    return raw


def _faults_within(invalid: ValidationError) -> Iterator[Fault]:
    for error in invalid.errors(include_input=False, include_url=False, include_context=False):
        # A discriminated union puts its tag into the location; it is not a member of the file.
        place = [
            part
            for at, part in enumerate(error["loc"])
            if not (at == 1 and error["loc"][0] == "identity" and part in _SOURCES)
        ]
        problem = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            problem = "is not a member we know"
        yield Fault(_path(place), problem)


_SOURCES: Final = ("secret", "podCertificate", "csi")


def _path(place: list[int | str]) -> str:
    written = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return written.removeprefix(".") or "the file"
