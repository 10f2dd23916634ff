"""Asks OpenSSL whether it would take a leaf of a CA, without the CA's key.

A leaf that names the CA as its issuer is presented in a handshake in memory. OpenSSL looks at the
form of the whole chain before it verifies a signature. So a CA in good form ends with a wrong
signature, and any other with the rule that it breaks: we need no list of OpenSSL's rules.
"""

import os
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

_X509_V_ERR_CERT_SIGNATURE_FAILURE: Final = 7  # x509_vfy.h


@lru_cache(maxsize=64)  # a start asks twice about each, and this answer does not change
def problem_of_openssl(authority: x509.Certificate) -> str | None:
    """The rule of OpenSSL's strict mode that a CA of client certificates breaks, or None.

    The key must be of a kind that `chassis.tls.key_policy` accepts, and the CA be valid now.
    """
    server = _context(ssl.PROTOCOL_TLS_SERVER)
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    server.load_verify_locations(cadata=authority.public_bytes(Encoding.DER))
    client = _context(ssl.PROTOCOL_TLS_CLIENT)
    leaf = _leaf(authority)
    for context in (server, client):
        _present(context, leaf)
    try:
        _shake_hands(server, client)
    except ssl.SSLCertVerificationError as refused:
        if refused.verify_code != _X509_V_ERR_CERT_SIGNATURE_FAILURE:
            return refused.verify_message
        return None
    except ssl.SSLError as error:
        return error.reason or "not usable"
    return "takes a leaf that it did not sign"


def _leaf(authority: x509.Certificate) -> x509.Certificate:
    """A client's certificate in good form that names `authority` but is signed by another key."""
    now, public = datetime.now(UTC), _leaf_key().public_key()
    usage = dict.fromkeys(_USAGES, False) | {"digital_signature": True}
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(_issuer_identifier(authority), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://check.invalid")]),
            critical=True,
        )
    )
    return _signed(builder, authority.public_key())


def _issuer_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    with suppress(x509.ExtensionNotFound):
        own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(_leaf_key().public_key())


def _signed(builder: x509.CertificateBuilder, like: object) -> x509.Certificate:
    """OpenSSL takes no certificate for the issuer whose key is not of the signature's kind."""
    match like:
        case rsa.RSAPublicKey():
            return builder.sign(_rsa_key(), hashes.SHA256())
        case ed25519.Ed25519PublicKey():
            return builder.sign(ed25519.Ed25519PrivateKey.generate(), None)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())


@lru_cache(maxsize=1)
def _rsa_key() -> rsa.RSAPrivateKey:
    """Signs throw-away leaves only; it takes a tenth of a second to make."""
    return rsa.generate_private_key(65537, 2048)


@lru_cache(maxsize=1)
def _leaf_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


_USAGES: Final = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
    "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def _context(protocol: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if protocol == ssl.PROTOCOL_TLS_CLIENT:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _present(context: ssl.SSLContext, leaf: x509.Certificate) -> None:
    """Python loads a certificate and its key from a file only, and our disk is read-only."""
    key = _leaf_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with open(os.memfd_create("leaf"), "wb", buffering=0) as file:
        file.write(leaf.public_bytes(Encoding.PEM) + key)
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(3):
        for side in sides:
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
