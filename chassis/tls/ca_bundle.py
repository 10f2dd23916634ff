"""What a peer's certificate may hang from: authorities that are fit to be one, and short chains.

OpenSSL would go on with a bundle in which nothing but a leaf, or nothing valid, is left; whoever
operates this should rather read at once what is wrong with it.
"""

import hashlib
import ssl
from collections.abc import Callable
from typing import Any, Final

from chassis.clock import Clock

# Leaf, two intermediates and the root: a depth of 3 as OpenSSL counts.
MAX_CHAIN_LENGTH: Final = 4

CaCheck = Callable[[bytes], str | None]
"""Says what is wrong with an authority's certificate (DER), or None."""


def accept_any(_: bytes) -> str | None:
    return None


class InvalidCaBundle(Exception):
    """A CA bundle must not be trusted as it is; the text says why."""


def trust_only(context: ssl.SSLContext, bundle: str, judge: CaCheck, now: Clock) -> None:
    """Let `context` trust the authorities in a PEM bundle, and refuse peers by OpenSSL's rules.

    Strict form (RFC 5280), keys and signatures of at least 112 bits of security, and a path that
    ends in a root: an intermediate in the bundle is no anchor of its own. Raises InvalidCaBundle.
    """
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.verify_flags &= ~ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_ciphers("DEFAULT:@SECLEVEL=2")
    try:
        context.load_verify_locations(cadata=bundle)
    except ssl.SSLError as error:
        raise InvalidCaBundle(error.reason or "no PEM certificate") from None
    counted = context.cert_store_stats()
    if counted["x509"] != counted["x509_ca"]:
        # A leaf among the anchors would be trusted as itself, whatever its CA says.
        raise InvalidCaBundle("must hold CA certificates and nothing else")
    roots = {str(anchor["subject"]) for anchor in context.get_ca_certs()}
    both = zip(context.get_ca_certs(), context.get_ca_certs(binary_form=True), strict=True)
    for anchor, der in both:
        problem = _problem(anchor, roots, now()) or judge(der)
        if problem is not None:
            raise InvalidCaBundle(f"authority {fingerprint(der)} {problem}")


def _problem(anchor: dict[str, Any], roots: set[str], now: float) -> str | None:
    if now >= ssl.cert_time_to_seconds(anchor["notAfter"]):
        return "has expired"
    if now < ssl.cert_time_to_seconds(anchor["notBefore"]):
        return "is not yet valid"
    if str(anchor["issuer"]) not in roots:
        return "is an intermediate whose root is not here"
    return None


def fingerprints(context: ssl.SSLContext) -> list[str]:
    """The authorities a context trusts, each as `openssl x509 -fingerprint -sha256` knows it."""
    return sorted(fingerprint(der) for der in context.get_ca_certs(binary_form=True))


def fingerprint(der: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def refuse_long_chain(tls: ssl.SSLObject) -> None:
    """Raise SSLCertVerificationError unless the peer's verified chain is known, and short enough.

    OpenSSL's own limit is a hundred, and Python cannot set it.
    """
    # Public since Python 3.13; before, one level deeper.
    read = getattr(tls, "get_verified_chain", None) or getattr(
        getattr(tls, "_sslobj", None), "get_verified_chain", None
    )
    chain = read() if read is not None else None
    if not chain or len(chain) > MAX_CHAIN_LENGTH:
        refused = ssl.SSLCertVerificationError("the certificate chain is unknown or too long")
        refused.reason = "CERTIFICATE_VERIFY_FAILED"
        refused.verify_message = "certificate chain unknown or too long"
        raise refused
