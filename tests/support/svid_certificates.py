"""Certificates of every shape, good and bad, as no decent authority would issue them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose
from cryptography.x509.oid import ExtensionOID, NameOID, ObjectIdentifier

from demo.pki import Issued

SPIFFE_ID = "spiffe://example.org/ns/mcp-servers/mcpserver/notes"
_UNKNOWN = ObjectIdentifier("1.3.6.1.4.1.55555.1")


def tlv(tag: int, content: bytes) -> bytes:
    """One DER value."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def uri(text: str | bytes) -> bytes:
    """A URI name as raw DER: no library has a say in what may stand in it."""
    return tlv(0x86, text.encode() if isinstance(text, str) else text)


def dns(text: str) -> bytes:
    return tlv(0x82, text.encode())


def ip(*octets: int) -> bytes:
    return tlv(0x87, bytes(octets))


def mail(text: str) -> bytes:
    return tlv(0x81, text.encode())


def usage(*names: str) -> x509.KeyUsage:
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name in names for name in every})


@dataclass(frozen=True)
class Shape:
    """What to put into a certificate; None leaves a part out, a pair carries `critical`."""

    names: tuple[bytes, ...] | None = (uri(SPIFFE_ID),)
    names_critical: bool = True
    subject: str | None = None
    ca: bool | None = False
    ca_critical: bool = True
    path_length: int | None = None
    usages: tuple[str, ...] | None = ("digital_signature",)
    usages_critical: bool = True
    purposes: tuple[ObjectIdentifier, ...] | None = (Purpose.CLIENT_AUTH, Purpose.SERVER_AUTH)
    purposes_critical: bool = False
    starts: timedelta = timedelta(minutes=-1)
    lives: timedelta = timedelta(hours=4)
    new_key: Callable[[], Any] = field(default=lambda: ec.generate_private_key(ec.SECP256R1()))
    subject_id: bool = True
    authority_id: bool = True
    more: tuple[tuple[x509.ExtensionType, bool], ...] = ()


@dataclass(frozen=True)
class Pair:
    """A certificate and its key; an authority if it was made as one."""

    certificate: x509.Certificate
    key: Any

    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def issued(self, *chain: "Pair") -> Issued:
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Issued(self.pem(), key, b"".join(each.pem() for each in (self, *chain)))

    def issue(self, shape: Shape = Shape()) -> "Pair":
        key = shape.new_key()
        return Pair(_sign(_built(shape, key, self.certificate.subject, self.key), self.key), key)


AUTHORITY = Shape(
    lives=timedelta(days=1),
    names=None,
    subject="workloads",
    ca=True,
    usages=("key_cert_sign", "crl_sign"),
    purposes=None,
)


INTERMEDIATE = replace(AUTHORITY, subject="workloads below", path_length=1)


def authority(**changes: Any) -> Shape:
    """An intermediate with these changes."""
    return replace(INTERMEDIATE, **changes)


def rsa_key(bits: int) -> Callable[[], rsa.RSAPrivateKey]:
    return lambda: rsa.generate_private_key(65537, bits)


def curve(which: ec.EllipticCurve) -> Callable[[], ec.EllipticCurvePrivateKey]:
    return lambda: ec.generate_private_key(which)


def self_signed(shape: Shape = AUTHORITY) -> Pair:
    key = shape.new_key()
    name = _name(shape.subject)
    return Pair(_sign(_built(shape, key, name, key), key), key)


def twice_named(pair: Pair, authority: Pair) -> bytes:
    """The DER of `pair`'s certificate with its SAN extension doubled, which no builder makes."""
    san = bytes.fromhex("0603551d11")
    placeholder = bytes.fromhex("0603551d63")
    assert pair.certificate.tbs_certificate_bytes.count(placeholder) == 1
    tbs = pair.certificate.tbs_certificate_bytes.replace(placeholder, san)
    signature = authority.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    return tlv(0x30, tbs + algorithm + tlv(0x03, b"\0" + signature))


def signed_with_sha1(pair: Pair, authority: Pair) -> Pair:
    """`pair` under a SHA-1 signature of an authority with an RSA key, which no builder makes."""
    sha256, sha1 = (bytes.fromhex(f"300d06092a864886f70d0101{n}0500") for n in ("0b", "05"))
    tbs = pair.certificate.tbs_certificate_bytes
    assert tbs.count(sha256) == 1
    tbs = tbs.replace(sha256, sha1)
    signature = authority.key.sign(tbs, padding.PKCS1v15(), hashes.SHA1())
    der = tlv(0x30, tbs + sha1 + tlv(0x03, b"\0" + signature))
    return Pair(x509.load_der_x509_certificate(der), pair.key)


def placeholder(*names: bytes) -> tuple[x509.ExtensionType, bool]:
    """A SAN under a number of its own, for `twice_named`."""
    number = ObjectIdentifier("2.5.29.99")
    return x509.UnrecognizedExtension(number, tlv(0x30, b"".join(names))), False


def unknown_extension(*, critical: bool) -> tuple[x509.ExtensionType, bool]:
    return x509.UnrecognizedExtension(_UNKNOWN, b"\x05\x00"), critical


def _name(common_name: str | None) -> x509.Name:
    if common_name is None:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _sign(builder: x509.CertificateBuilder, key: Any) -> x509.Certificate:
    unhashed = ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
    algorithm = None if isinstance(key, unhashed) else hashes.SHA256()
    return builder.sign(key, algorithm)


def _built(shape: Shape, key: Any, issuer: x509.Name, issuer_key: Any) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(shape.subject))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + shape.starts)
        .not_valid_after(now + shape.starts + shape.lives)
    )
    for extension, critical in _extensions(shape, key, issuer_key):
        builder = builder.add_extension(extension, critical)
    return builder


def _extensions(shape: Shape, key: Any, issuer_key: Any) -> list[tuple[x509.ExtensionType, bool]]:
    found: list[tuple[x509.ExtensionType, bool]] = []
    if shape.subject_id:
        found.append((x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False))
    if shape.authority_id:
        found.append((_authority_id(issuer_key), False))
    if shape.ca is not None:
        found.append((x509.BasicConstraints(shape.ca, shape.path_length), shape.ca_critical))
    if shape.usages is not None:
        found.append((usage(*shape.usages), shape.usages_critical))
    if shape.purposes is not None:
        found.append((x509.ExtendedKeyUsage(shape.purposes), shape.purposes_critical))
    if shape.names is not None:
        value = tlv(0x30, b"".join(shape.names))
        san = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, value)
        found.append((san, shape.names_critical))
    return [*found, *shape.more]


def _authority_id(issuer_key: Any) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
