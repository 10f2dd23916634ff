"""A certificate and its key prove themselves in a TLS handshake with ourselves."""

import re
import ssl
from typing import Any, Final, NamedTuple

from chassis.tls.contexts import CredentialFault, KeyPair, load_key_pair, read_pem
from chassis.utc import certificate_date

_CERTIFICATE_PEM: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL
)


class Certificate(NamedTuple):
    """What a process needs to know of its own certificate."""

    uris: tuple[str, ...]
    dns_names: tuple[str, ...]
    serial: str
    not_before: float
    not_after: float


def verify_key_pair(pair: KeyPair, *, as_client: bool) -> Certificate:
    """Hold a TLS handshake with ourselves over this pair; say what its certificate carries.

    Proves, with OpenSSL and not with our own parsing, that the key fits, that the certificate is
    valid now and that its key usage allows the role. Raises CredentialFault.
    """
    leaf = _CERTIFICATE_PEM.search(read_pem(pair.certificate))
    if leaf is None:
        raise CredentialFault(f"{pair.certificate}: no certificate in it")
    prover, verifier = (
        (_bare_context(ssl.PROTOCOL_TLS_CLIENT), _bare_context(ssl.PROTOCOL_TLS_SERVER))
        if as_client
        else (_bare_context(ssl.PROTOCOL_TLS_SERVER), _bare_context(ssl.PROTOCOL_TLS_CLIENT))
    )
    load_key_pair(prover, pair)
    if as_client:
        load_key_pair(verifier, pair)  # a server has to present something
    verifier.verify_mode = ssl.CERT_REQUIRED
    # The leaf itself is the anchor here: whether our CA is trusted is the other side's affair.
    verifier.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    verifier.load_verify_locations(cadata=leaf.group())
    try:
        peer = _shake_hands(prover, verifier, verifier_is_server=as_client)
    except ssl.SSLError as error:
        problem = getattr(error, "verify_message", None) or error.reason
        raise CredentialFault(f"{pair.certificate}: {problem}") from None
    names = peer.get("subjectAltName", ())
    return Certificate(
        uris=tuple(value for kind, value in names if kind == "URI"),
        dns_names=tuple(value for kind, value in names if kind == "DNS"),
        serial=peer["serialNumber"],
        not_before=certificate_date(peer["notBefore"]),
        not_after=certificate_date(peer["notAfter"]),
    )


def _bare_context(protocol: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if protocol == ssl.PROTOCOL_TLS_CLIENT:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _shake_hands(
    prover: ssl.SSLContext, verifier: ssl.SSLContext, *, verifier_is_server: bool
) -> dict[str, Any]:
    to_verifier, to_prover = ssl.MemoryBIO(), ssl.MemoryBIO()
    verifying = verifier.wrap_bio(to_verifier, to_prover, server_side=verifier_is_server)
    proving = prover.wrap_bio(to_prover, to_verifier, server_side=not verifier_is_server)
    waiting = [proving, verifying]
    for _ in range(4):  # TLS 1.3 needs two turns
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
    return verifying.getpeercert() or {}
