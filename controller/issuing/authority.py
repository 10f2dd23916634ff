"""Two kinds of authorities: one signs workloads, the other servers, and neither does the other's.

Keys are P-256. An authority of ours is self-signed, signs leaves only (path length 0), and says
itself which names it may vouch for (RFC 5280 section 4.2.1.10), so that a stolen one is worth no
more than that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from chassis.tls import certificate_forms

PrivateKey = ec.EllipticCurvePrivateKey
KeyMaker = Callable[[], PrivateKey]

# Clocks of two machines differ.
BACKDATED: Final = timedelta(minutes=2)

ROLES: Final = {
    ExtendedKeyUsageOID.CLIENT_AUTH: "clients",
    ExtendedKeyUsageOID.SERVER_AUTH: "servers",
}

_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InvalidSignature,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class InvalidAuthority(ValueError):
    """The certificate and key cannot sign what they are for; the text says why, without the key."""


def new_key() -> PrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Purpose:
    """What an authority may sign: the role of its leaves, and the names in them."""

    common_name: str
    role: ObjectIdentifier
    names: x509.NameConstraints


def workloads(trust_domain: str) -> Purpose:
    """For SPIFFE IDs of one trust domain, in client certificates."""
    return Purpose(
        "Tokenward workloads",
        ExtendedKeyUsageOID.CLIENT_AUTH,
        x509.NameConstraints(
            permitted_subtrees=[x509.UniformResourceIdentifier(trust_domain)],
            excluded_subtrees=[
                x509.DNSName(""),
                x509.IPAddress(IPv4Network("0.0.0.0/0")),
                x509.IPAddress(IPv6Network("::/0")),
            ],
        ),
    )


def servers(namespace: str, cluster_domain: str) -> Purpose:
    """For the names of Services of one namespace, in server certificates."""
    return Purpose(
        "Tokenward servers",
        ExtendedKeyUsageOID.SERVER_AUTH,
        x509.NameConstraints(
            permitted_subtrees=[
                x509.DNSName(f"{namespace}.svc"),
                x509.DNSName(f"{namespace}.svc.{cluster_domain}"),
            ],
            excluded_subtrees=[
                x509.IPAddress(IPv4Network("0.0.0.0/0")),
                x509.IPAddress(IPv6Network("::/0")),
            ],
        ),
    )


@dataclass(frozen=True)
class Issued:
    """A leaf and its chain, leaf first, without the root."""

    leaf: x509.Certificate
    chain_pem: bytes

    @property
    def serial(self) -> str:
        """In hexadecimal capitals, as audit events of the authserver write it."""
        return f"{self.leaf.serial_number:X}"


@dataclass(frozen=True, repr=False)
class Authority:
    """A certificate that may sign, its key, and what a peer needs above it (PEM, may be empty)."""

    certificate: x509.Certificate
    key: PrivateKey
    chain_pem: bytes = b""

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        public_key: ec.EllipticCurvePublicKey,
        names: Sequence[x509.GeneralName],
        role: ObjectIdentifier,
        *,
        now: datetime,
        lifetime: timedelta,
        not_before: datetime | None = None,
    ) -> Issued:
        """Sign a leaf that ends `lifetime` after its beginning, or with this authority.

        Raises InvalidAuthority where this authority has ended or not begun.
        """
        begins = max(not_before or now - BACKDATED, self.certificate.not_valid_before_utc)
        ends = min(begins + lifetime, self.certificate.not_valid_after_utc)
        if not begins <= now < ends:
            raise InvalidAuthority("is not valid now")
        form = certificate_forms.leaf(public_key, self.certificate, names, [role], begins, ends)
        leaf = form.sign(self.key, hashes.SHA256())
        return Issued(leaf, leaf.public_bytes(Encoding.PEM) + self.chain_pem)


def create(purpose: Purpose, *, key: PrivateKey, now: datetime, lifetime: timedelta) -> Authority:
    """A self-signed authority for `purpose`."""
    certificate = (
        certificate_forms.authority(
            key.public_key(), purpose.common_name, now - BACKDATED, now + lifetime
        )
        .add_extension(x509.ExtendedKeyUsage([purpose.role]), critical=False)
        .add_extension(purpose.names, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def load(certificate_pem: bytes, key_pem: bytes) -> Authority:
    """The authority in a Secret: a certificate, what is above it, and the key.

    Raises InvalidAuthority, whose text repeats nothing of the key.
    """
    try:
        first, *above = x509.load_pem_x509_certificates(certificate_pem)
        key = load_pem_private_key(key_pem, None)
    except _UNREADABLE:
        raise InvalidAuthority("holds no certificate and unencrypted key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidAuthority("has a key that is not P-256")
    if first.public_key() != key.public_key():
        raise InvalidAuthority("has a key of another certificate")
    if problem := _problem_of(first):
        raise InvalidAuthority(problem)
    # What a peer has to be sent: the intermediate itself where it is not a root.
    chain = (
        b""
        if signed_by(first, first)
        else b"".join(c.public_bytes(Encoding.PEM) for c in (first, *above))
    )
    return Authority(first, key, chain)


def signed_by(certificate: x509.Certificate, signer: x509.Certificate) -> bool:
    """Whether the signature is the signer's; equal names alone prove nothing."""
    try:
        certificate.verify_directly_issued_by(signer)
    except _UNREADABLE:
        return False
    return True


def leads_to(chain_pem: bytes, trusted_pem: bytes) -> bool:
    """Whether a chain, leaf first, ends in one of these authorities."""
    trusted = certificates(trusted_pem)
    below: x509.Certificate | None = None
    for one in certificates(chain_pem):
        if below is not None and (_problem_of(one) is not None or not signed_by(below, one)):
            return False
        if any(signed_by(one, anchor) for anchor in trusted):
            return True
        below = one
    return False


def _problem_of(certificate: x509.Certificate) -> str | None:
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return "does not say that it is a CA and may sign certificates"
    except _UNREADABLE:
        return "cannot be read"
    if not constraints.ca or not usage.key_cert_sign:
        return "is no CA or may not sign certificates"
    return None


def key_pem(key: PrivateKey) -> bytes:
    """PKCS#8 without a password, as every process of ours reads it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificates(pem: bytes) -> list[x509.Certificate]:
    """The certificates in PEM, empty where there is none that can be read."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except _UNREADABLE:
        return []


def key_fits(certificate: x509.Certificate, pem: bytes) -> bool:
    """Whether the private key in PEM is this certificate's."""
    try:
        return load_pem_private_key(pem, None).public_key() == certificate.public_key()
    except _UNREADABLE:
        return False
