import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chassis.tls import certificate_forms

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    form = certificate_forms.authority(key.public_key(), "ours", NOW - HOUR, NOW + HOUR)
    return form.sign(key, hashes.SHA256())


def leaf(issuer: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    names = [x509.UniformResourceIdentifier("spiffe://example.org/ns/a/mcpserver/b")]
    form = certificate_forms.leaf(
        new_key().public_key(), issuer, names, [CLIENT], NOW - HOUR, NOW + HOUR
    )
    return form.sign(key, hashes.SHA256())


def openssl(folder: Path, purpose: str, root: x509.Certificate, *chain: x509.Certificate) -> bool:
    """Whether OpenSSL's strict mode takes the last of the chain for this purpose."""
    (folder / "ca.pem").write_bytes(root.public_bytes(Encoding.PEM))
    for name, part in (("between.pem", chain[:-1]), ("leaf.pem", chain[-1:])):
        (folder / name).write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in part))
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.pem"]
    if chain[:-1]:
        command += ["-untrusted", "between.pem"]
    done = subprocess.run([*command, "leaf.pem"], cwd=folder, capture_output=True, check=False)
    return done.returncode == 0


def test_a_leaf_is_good_for_its_role_and_for_no_other(tmp_path: Path) -> None:
    key = new_key()
    root = authority(key)
    assert openssl(tmp_path, "sslclient", root, leaf(root, key))
    assert not openssl(tmp_path, "sslserver", root, leaf(root, key))


def test_an_authority_signs_leaves_only(tmp_path: Path) -> None:
    key, below = new_key(), new_key()
    root = authority(key)
    between = _below(root, below, key)
    assert not openssl(tmp_path, "sslclient", root, between, leaf(between, below))


def _below(
    root: x509.Certificate, below: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """An authority that the first one signed."""
    own = x509.SubjectKeyIdentifier.from_public_key(below.public_key())
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "below")]))
        .issuer_name(root.subject)
        .public_key(below.public_key())
        .serial_number(7)
        .not_valid_before(NOW - HOUR)
        .not_valid_after(NOW + HOUR)
        .add_extension(own, critical=False)
        .add_extension(above, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(certificate_forms.key_usage("key_cert_sign"), critical=True)
        .sign(key, hashes.SHA256())
    )
