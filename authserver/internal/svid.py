"""Who calls: a workload, read from the leaf of a chain that OpenSSL has already verified.

OpenSSL builds the path but accepts leaves that no X.509-SVID may be (CA certificates, several
URI names, missing or non-critical key usage), so the leaf is checked again here, from its DER
(SPIFFE X509-SVID sections 2 to 5).
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from authserver.internal.denial_reasons import DenialReason
from authserver.values import Value
from chassis.spiffe_id import InvalidSpiffeId, Workload, parse_workload
from chassis.tls import key_policy

UNREADABLE: Final = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class InvalidSvid(Exception):
    """The certificate is no X.509-SVID of a workload of ours."""

    def __init__(self, reason: DenialReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Svid(Value, frozen=True):
    """A workload's certificate; times are seconds since the Unix epoch.

    Its DNS names, in lower case, give it nothing.
    """

    workload: Workload
    spiffe_id: str
    serial: str
    fingerprint: str
    not_before: float
    not_after: float
    dns_names: frozenset[str]

    def valid(self, now: float) -> bool:
        return self.not_before <= now < self.not_after


class SvidReader:
    """Reads leaves; the same connection's leaf is parsed once."""

    def __init__(self, trust_domain: str, *, max_lifetime: int, own_names: Iterable[str]) -> None:
        self._trust_domain = trust_domain
        self._longest_life = timedelta(seconds=max_lifetime)
        self.set_own_names(own_names)

    def set_own_names(self, names: Iterable[str]) -> None:
        """The DNS names in our own certificate, from now on."""
        self._own_names = _lower(names)

    def impersonates_us(self, svid: Svid) -> bool:
        """Whether it has a DNS name of ours; asked on every request, for our names may change."""
        return not self._own_names.isdisjoint(svid.dns_names)

    def read(self, der: bytes) -> Svid:
        """The SVID in a leaf certificate. Raises InvalidSvid."""
        try:
            leaf = x509.load_der_x509_certificate(der)
            extensions = leaf.extensions
            key = leaf.public_key()
        except UNREADABLE:
            raise InvalidSvid(DenialReason.CERTIFICATE_UNREADABLE) from None
        _check_usage(extensions)
        if not key_policy.is_accepted(key):
            raise InvalidSvid(DenialReason.WEAK_KEY)
        if leaf.not_valid_after_utc - leaf.not_valid_before_utc > self._longest_life:
            raise InvalidSvid(DenialReason.CERTIFICATE_LIVES_TOO_LONG)
        names = _names(extensions)
        spiffe_id = _only_uri(names)
        try:
            workload = parse_workload(spiffe_id, trust_domain=self._trust_domain)
        except InvalidSpiffeId:
            raise InvalidSvid(DenialReason.NOT_A_WORKLOAD_OF_THIS_TRUST_DOMAIN) from None
        return Svid(
            workload,
            spiffe_id,
            f"{leaf.serial_number:X}",
            leaf.fingerprint(hashes.SHA256()).hex(),
            leaf.not_valid_before_utc.timestamp(),
            leaf.not_valid_after_utc.timestamp(),
            _lower(names.get_values_for_type(x509.DNSName)),
        )


def _names(extensions: x509.Extensions) -> x509.SubjectAlternativeName:
    try:
        return extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise InvalidSvid(DenialReason.NO_SPIFFE_ID) from None


def _only_uri(names: x509.SubjectAlternativeName) -> str:
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise InvalidSvid(DenialReason.NOT_EXACTLY_ONE_URI)
    return uris[0]


def _lower(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)


def _check_usage(extensions: x509.Extensions) -> None:
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        if constraints.value.ca:
            raise InvalidSvid(DenialReason.CERTIFICATE_OF_A_CA)
    except x509.ExtensionNotFound:
        pass  # absent means that it is not a CA (RFC 5280 section 4.2.1.9)
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage)
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise InvalidSvid(DenialReason.KEY_USAGE_MISSING) from None
    if not usage.critical or not usage.value.digital_signature:
        raise InvalidSvid(DenialReason.KEY_USAGE)
    if usage.value.key_cert_sign or usage.value.crl_sign:
        raise InvalidSvid(DenialReason.CERTIFICATE_MAY_SIGN_CERTIFICATES)
    if ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        raise InvalidSvid(DenialReason.NOT_FOR_CLIENT_AUTHENTICATION)
