"""Whether the authorities in an upstream's `caFile` are fit to verify a server's certificate.

OpenSSL's strict checking, which we switch on everywhere, refuses what such an authority signed.
It says so at the first call only, and a caller could take that for an outage.
"""

from collections.abc import Iterator
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

_T = TypeVar("_T", bound=x509.ExtensionType)

_UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


def problems_of(pem: bytes) -> list[str]:
    """What is wrong with the authorities in a PEM file, one text each; empty where all are fit."""
    try:
        authorities = x509.load_pem_x509_certificates(pem)
    except _UNREADABLE:
        return ["holds no certificate in PEM"]
    return [
        f"certificate {number} ({authority.subject.rfc4514_string()}) {problem}"
        for number, authority in enumerate(authorities, 1)
        for problem in _problems(authority)
    ]


def certificates_of(pem: bytes) -> str:
    """The certificates of a PEM file alone, in PEM: a file may hold comments, or even a key."""
    authorities = x509.load_pem_x509_certificates(pem)
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in authorities)


def _problems(authority: x509.Certificate) -> Iterator[str]:
    """RFC 5280 section 4.2 as OpenSSL's X509_V_FLAG_X509_STRICT enforces it for an authority."""
    try:
        extensions = authority.extensions
    except _UNREADABLE:
        yield "cannot be read"
        return
    constraints = _extension(extensions, x509.BasicConstraints)
    if constraints is None or not constraints.value.ca:
        yield "is not a CA (no basicConstraints with CA:TRUE)"
        return  # the other rules are for authorities
    if not constraints.critical:
        yield "has basicConstraints that are not critical"
    usage = _extension(extensions, x509.KeyUsage)
    if usage is None or not usage.value.key_cert_sign:
        yield "has no keyUsage extension with keyCertSign"
    if _extension(extensions, x509.SubjectKeyIdentifier) is None:
        yield "has no subjectKeyIdentifier"
    key_id = _extension(extensions, x509.AuthorityKeyIdentifier)
    if authority.issuer != authority.subject and key_id is None:
        yield "has no authorityKeyIdentifier"


def _extension(extensions: x509.Extensions, kind: type[_T]) -> x509.Extension[_T] | None:
    try:
        return extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None
