"""A development PKI: authorities, server certificates and X.509-SVIDs of workloads.

The server's authority and the workloads' authority are two: a workload's certificate must never
pass for the authserver's. Every certificate passes OpenSSL's strict checks.
"""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

AUTHORITY_LIFETIME: Final = timedelta(days=1)
LEAF_LIFETIME: Final = timedelta(hours=4)

# Clocks of two machines differ; a certificate valid from this very second is refused by some.
_BACKDATED: Final = timedelta(minutes=1)

Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Issued:
    """A leaf certificate, its key, and the `chain` a TLS peer presents: leaf first, no root."""

    certificate_pem: bytes
    key_pem: bytes
    chain: bytes


@dataclass(frozen=True)
class CertificateAuthority:
    """A self-signed root that issues leaves directly."""

    certificate: x509.Certificate
    key: Key

    @classmethod
    def create(cls, name: str, *, now: datetime | None = None) -> "CertificateAuthority":
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = _key_usage(key_cert_sign=True, crl_sign=True)
        certificate = (
            _unsigned(subject, subject, key, key, now or _now(), AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue_server(
        self,
        *,
        dns: tuple[str, ...] = ("localhost",),
        ips: tuple[str, ...] = ("127.0.0.1",),
        lifetime: timedelta = LEAF_LIFETIME,
        now: datetime | None = None,
    ) -> Issued:
        names = [x509.DNSName(name) for name in dns]
        addresses = [x509.IPAddress(ip_address(ip)) for ip in ips]
        roles = [ExtendedKeyUsageOID.SERVER_AUTH]
        return self._issue([*names, *addresses], roles, lifetime, now or _now())

    def issue_svid(
        self,
        spiffe_id: str,
        *,
        lifetime: timedelta = LEAF_LIFETIME,
        now: datetime | None = None,
    ) -> Issued:
        """An X.509-SVID whose one and only name is `spiffe_id`."""
        roles = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        names = [x509.UniformResourceIdentifier(spiffe_id)]
        return self._issue(names, roles, lifetime, now or _now())

    def _issue(
        self,
        names: Sequence[x509.GeneralName],
        roles: Sequence[ObjectIdentifier],
        lifetime: timedelta,
        now: datetime,
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _unsigned(x509.Name([]), self.certificate.subject, key, self.key, now, lifetime)
            # RFC 5280 section 4.2.1.6: without a subject name the SAN must be critical.
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(roles), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        pem = certificate.public_bytes(Encoding.PEM)
        return Issued(certificate_pem=pem, key_pem=private_key_pem(key), chain=pem)


def private_key_pem(key: Key) -> bytes:
    """PKCS#8 without a password."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_private(path: Path, content: bytes) -> None:
    """Put `content` at `path`, readable by this user alone, in one step for whoever reads it."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    draft.replace(path)


def write_credential(folder: Path, issued: Issued) -> None:
    """Write `tls.crt` and `tls.key` into `folder`, which is made if need be."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(folder / "tls.key", issued.key_pem)
    write_private(folder / "tls.crt", issued.chain)


def _unsigned(
    subject: x509.Name,
    issuer: x509.Name,
    key: Key,
    issuer_key: Key,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    """What every certificate of ours carries; OpenSSL's strict mode wants both key identifiers."""
    subject_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + lifetime)
        .add_extension(subject_id, critical=False)
        .add_extension(issuer_id, critical=False)
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _now() -> datetime:
    return datetime.now(UTC)
