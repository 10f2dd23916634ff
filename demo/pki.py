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
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from chassis.tls import certificate_forms

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
        begins = now or _now()
        form = certificate_forms.authority(
            key.public_key(), name, begins - _BACKDATED, begins + AUTHORITY_LIFETIME
        )
        certificate = form.sign(key, hashes.SHA256())
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
        form = certificate_forms.leaf(
            key.public_key(), self.certificate, names, roles, now - _BACKDATED, now + lifetime
        )
        certificate = form.sign(self.key, hashes.SHA256())
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


def _now() -> datetime:
    return datetime.now(UTC)
