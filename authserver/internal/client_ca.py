"""Whether a CA in the bundle of workload authorities is fit to vouch for workloads."""

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from authserver.internal.openssl_check import problem_of_openssl
from authserver.internal.svid import UNREADABLE
from chassis.tls import key_policy


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
    if not key_policy.is_accepted(key, key_policy.CA_CURVES):
        return "has a weak key"
    if isinstance(signed_with, hashes.SHA1 | hashes.MD5) and anchor.issuer != anchor.subject:
        return "is signed with a broken hash"  # nobody verifies what a root says of itself
    refused = problem_of_openssl(anchor)
    return None if refused is None else f"can vouch for nobody: {refused}"
