"""Whether a CA in the bundle of workload authorities is fit to vouch for workloads."""

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from authserver.internal.svid import UNREADABLE

_MIN_RSA_BITS = 2048
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


def problem_of(der: bytes) -> str | None:
    """What is wrong with an authority's certificate, or None.

    OpenSSL refuses what hangs from most of these too, but only once a workload calls, and then
    as the workload's fault.
    """
    try:
        anchor = x509.load_der_x509_certificate(der)
        extensions, key = anchor.extensions, anchor.public_key()
        signed_with = anchor.signature_hash_algorithm
    except UNREADABLE:
        return "cannot be read"
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return "does not say that it is a CA and may sign certificates"
    if not constraints.ca or not usage.key_cert_sign:
        return "is no CA or may not sign certificates"
    if not _strong(key):
        return "has a weak key"
    if isinstance(signed_with, hashes.SHA1 | hashes.MD5) and anchor.issuer != anchor.subject:
        return "is signed with a broken hash"  # nobody verifies what a root says of itself
    return None


def _strong(key: object) -> bool:
    match key:
        case rsa.RSAPublicKey():
            return key.key_size >= _MIN_RSA_BITS
        case ec.EllipticCurvePublicKey():
            return key.curve.name in _CURVES
    return isinstance(key, ed25519.Ed25519PublicKey)
