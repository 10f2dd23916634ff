"""Certificate authorities of one control plane, and the certificates of its processes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from chassis.tls.certificate_forms import key_usage

LIFETIME: Final = timedelta(days=7)

# Clocks of two machines differ.
_BACKDATED: Final = timedelta(minutes=5)

Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class KeyPair:
    """Paths of a PEM certificate and of its PEM key (PKCS#8, mode 0600)."""

    certificate: Path
    key: Path


class Authority:
    """A self-signed CA that keeps its files in `folder`."""

    def __init__(self, folder: Path, name: str, now: datetime | None = None) -> None:
        self._now = now or datetime.now(UTC)
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = _subject(name)
        certificate = (
            self._unsigned(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage("key_cert_sign", "crl_sign"), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.files = _write(folder, name, certificate, self._key)

    def client(self, name: str, *groups: str) -> KeyPair:
        """A client certificate: Kubernetes reads CN as the user and each O as a group."""
        return self._issue(name, groups, (), (ExtendedKeyUsageOID.CLIENT_AUTH,))

    def server(self, name: str, *hosts: str) -> KeyPair:
        """A serving certificate for host names and IP addresses.

        It is good for a client too: members of etcd present one certificate in both roles.
        """
        roles = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
        return self._issue(name, (), hosts, roles)

    def _issue(
        self,
        name: str,
        groups: Sequence[str],
        hosts: Sequence[str],
        roles: Sequence[ObjectIdentifier],
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            self._unsigned(_subject(name, *groups), key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage(roles), critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return _write(self._folder, name, builder.sign(self._key, hashes.SHA256()), key)

    def _unsigned(self, subject: x509.Name, key: Key) -> x509.CertificateBuilder:
        subject_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - _BACKDATED)
            .not_valid_after(self._now + LIFETIME)
            .add_extension(subject_id, critical=False)
            .add_extension(issuer_id, critical=False)
        )


def service_account_keys(folder: Path) -> KeyPair:
    """The key that signs ServiceAccount tokens; `certificate` holds its public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = folder / "service-account.pub"
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return KeyPair(public, _write_key(folder / "service-account.key", key))


def _subject(name: str, *groups: str) -> x509.Name:
    organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(folder: Path, name: str, certificate: x509.Certificate, key: Key) -> KeyPair:
    stem = name.replace(":", "-")
    public = folder / f"{stem}.crt"
    public.write_bytes(certificate.public_bytes(Encoding.PEM))
    return KeyPair(public, _write_key(folder / f"{stem}.key", key))


def _write_key(path: Path, key: Key) -> Path:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
    return path
