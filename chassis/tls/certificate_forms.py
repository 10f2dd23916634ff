"""What every certificate that we issue has in common; the signer adds names, roles and times.

Both forms pass OpenSSL's strict mode, which wants both key identifiers.
"""

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier


def authority(
    public_key: ec.EllipticCurvePublicKey, common_name: str, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    """A self-signed authority that signs leaves only; not signed yet."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    own = x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key)
    return (
        _unsigned(public_key, subject, subject, begins, ends)
        .add_extension(own, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage("key_cert_sign", "crl_sign"), critical=True)
    )


def leaf(
    public_key: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate,
    names: Sequence[x509.GeneralName],
    roles: Sequence[ObjectIdentifier],
    begins: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    """A leaf without a subject name; not signed yet. The issuer has a subject key identifier."""
    signer = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    above = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer)
    return (
        _unsigned(public_key, x509.Name([]), issuer.subject, begins, ends)
        .add_extension(above, critical=False)
        # RFC 5280 section 4.2.1.6: without a subject name the SAN must be critical.
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage(roles), critical=False)
    )


def key_usage(*usages: str) -> x509.KeyUsage:
    """These usages, by cryptography's names, and no other."""
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{usage: usage in usages for usage in every})


def _unsigned(
    public_key: ec.EllipticCurvePublicKey,
    subject: x509.Name,
    issuer: x509.Name,
    begins: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins.replace(microsecond=0))
        .not_valid_after(ends.replace(microsecond=0))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )
