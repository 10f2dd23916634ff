"""The kinds of values only this configuration holds, each checked where it is read.

Paths are taken relative to the configuration file; what is wrong with a file is one more line in
the report.
"""

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, ValidationInfo

from chassis.config_types import matches_pattern
from chassis.spiffe_id import is_dns_label
from webhook.quantity import Quantity

# Annotations share 256 KiB with everything else on the object; a CA bundle is a few of these.
_MAX_CA_BYTES: Final = 64 * 1024

_IMAGE: Final = re.compile(
    r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?@sha256:[0-9a-f]{64}",
    re.ASCII,
)
_RESOURCE: Final = re.compile(
    r"https?://(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?:[/?][A-Za-z0-9:/?@!$&'()*+,;=._~%-]{0,2000})?",
    re.ASCII,
)
_CERTIFICATE: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----", re.ASCII
)


def is_resource(text: str) -> bool:
    """Whether the text is an absolute http or https URL without fragment and user information."""
    match = _RESOURCE.fullmatch(text)
    return match is not None and int(match["port"] or 0) <= 65535


def _resource(text: str) -> str:
    if not is_resource(text):
        raise ValueError("must be an absolute http or https URL without fragment")
    return text


def _label(text: str) -> str:
    if not is_dns_label(text):
        raise ValueError("must be a DNS-1123 label")
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
    certificates = "\n".join(_CERTIFICATE.findall(text)) + "\n"
    if len(certificates) > _MAX_CA_BYTES:
        raise ValueError(f"{file} holds more than {_MAX_CA_BYTES} bytes of certificates")
    try:
        ssl.create_default_context(cadata=certificates)
    except ssl.SSLError:
        raise ValueError(f"{file} holds no certificate, or a broken one") from None
    return certificates


Name = Annotated[str, AfterValidator(_label)]
Resource = Annotated[str, AfterValidator(_resource)]
Https = Annotated[str, AfterValidator(_https)]
Host = Annotated[str, AfterValidator(_host)]
Amount = Annotated[Quantity, BeforeValidator(_quantity), PlainSerializer(str)]
Image = Annotated[
    str, matches_pattern(_IMAGE, "an image pinned by digest: registry/name@sha256:<64 hex digits>")
]
Certificates = Annotated[CaBundle, BeforeValidator(_ca_bundle)]
