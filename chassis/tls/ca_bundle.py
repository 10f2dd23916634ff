"""What a peer's certificate may hang from: authorities that are fit to be one, and short chains.

OpenSSL would go on with a bundle in which nothing but a leaf, or nothing valid, is left; whoever
operates this should rather read at once what is wrong with it.
"""

import hashlib
import ssl
from collections.abc import Callable
from typing import Any, Final

from chassis.clock import Clock
from chassis.utc import certificate_date

# Leaf, two intermediates and the root: a depth of 3 as OpenSSL counts.
MAX_CHAIN_LENGTH: Final = 4

CaCheck = Callable[[bytes], str | None]
"""Says what is wrong with an authority's certificate (DER), or None."""


def accept_any(_: bytes) -> str | None:
    return None


class InvalidCaBundle(Exception):
    """A CA bundle must not be trusted as it is; the text says why."""


def trust_only(context: ssl.SSLContext, bundle: str, judge: CaCheck, now: Clock) -> tuple[str, ...]:
    """Let `context` trust the CAs in a PEM bundle, and refuse peers by OpenSSL's rules.

    Strict form (RFC 5280), keys and signatures of at least 112 bits of security, and a path that
    ends in a root: an intermediate in the bundle is no trust anchor of its own. An expired CA is
    left out while a valid one remains: it is harmless, and taking it out late must stop nobody.
    Returns the fingerprints of those left out. Raises InvalidCaBundle.
    """
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.verify_flags &= ~ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_ciphers("DEFAULT:@SECLEVEL=2")
    authorities, moment = _authorities(bundle), now()
    expired = {der for anchor, der in authorities if _has_expired(anchor, moment)}
    if len(expired) == len(authorities):
        raise InvalidCaBundle(f"authority {fingerprint(authorities[0][1])} has expired")
    valid = [(anchor, der) for anchor, der in authorities if der not in expired]
    roots = {str(anchor["subject"]) for anchor, _ in valid}
    for anchor, der in valid:
        problem = _problem(anchor, roots, moment) or judge(der)
        if problem is not None:
            raise InvalidCaBundle(f"authority {fingerprint(der)} {problem}")
    context.load_verify_locations(cadata=b"".join(der for _, der in valid))
    return tuple(sorted(fingerprint(der) for der in expired))


def _authorities(bundle: str) -> list[tuple[dict[str, Any], bytes]]:
    """Each CA of a bundle as Python describes it, and its DER. Raises InvalidCaBundle."""
    reader = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        reader.load_verify_locations(cadata=bundle)
    except ssl.SSLError as error:
        raise InvalidCaBundle(error.reason or "no PEM certificate") from None
    counted = reader.cert_store_stats()
    if counted["x509"] != counted["x509_ca"]:
        # A leaf among the anchors would be trusted as itself, whatever its CA says.
        raise InvalidCaBundle("must hold CA certificates and nothing else")
    both = zip(reader.get_ca_certs(), reader.get_ca_certs(binary_form=True), strict=True)
    return list(both)


def _has_expired(anchor: dict[str, Any], now: float) -> bool:
    return now >= certificate_date(anchor["notAfter"])


def _problem(anchor: dict[str, Any], roots: set[str], now: float) -> str | None:
    if now < certificate_date(anchor["notBefore"]):
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
