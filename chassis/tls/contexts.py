"""TLS contexts for clients and servers, made of certificate, key and CA files."""

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from chassis.clock import wall
from chassis.tls import ca_bundle
from chassis.tls.ca_bundle import CaCheck


class CredentialFault(Exception):
    """A certificate, key or CA file cannot be used; the text names the file and what is wrong."""


class KeyPair(NamedTuple):
    """Where a certificate chain and its key lie; a bundle is one file that holds both."""

    certificate: Path
    key: Path

    @classmethod
    def in_directory(cls, directory: Path) -> "KeyPair":
        """`credential-bundle.pem`, or else `tls.crt` and `tls.key`, through one resolved folder.

        Kubernetes swaps a mounted folder by moving one symbolic link; resolving that link once
        keeps a certificate of one version from meeting a key of the next.
        """
        data = directory / "..data"
        folder = Path(os.path.realpath(data if data.exists() else directory))
        bundle = folder / "credential-bundle.pem"
        if bundle.exists():
            return cls(bundle, bundle)
        return cls(folder / "tls.crt", folder / "tls.key")


OnExpired = Callable[[tuple[str, ...]], None]
"""Gets the SHA-256 fingerprints of the expired CAs that were left out of a bundle."""


def ignore_expired(_: tuple[str, ...]) -> None:
    pass


def client_context(
    pair: KeyPair, trusted: Path, on_expired: OnExpired = ignore_expired
) -> ssl.SSLContext:
    """TLS 1.3 with our certificate, towards servers of the CAs in `trusted` and no others."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = True
    on_expired(_trust(context, trusted, ca_bundle.accept_any))
    load_key_pair(context, pair)
    return context


def mutual_server_context(
    pair: KeyPair,
    trusted: Path,
    on_refused: Callable[[ssl.SSLError], None],
    judge: CaCheck = ca_bundle.accept_any,
    on_expired: OnExpired = ignore_expired,
) -> ssl.SSLContext:
    """TLS 1.3 for clients that hold a certificate of one of the CAs in `trusted`; nobody else.

    No session tickets: a resumed session skips the certificate check, so an expired or replaced
    certificate would still get in. `on_refused` is called with the reason of every refused
    handshake; TLS 1.3 gives the peer no more than a closed connection. `judge` says what this
    module, which has no means of its own for it, cannot see in a CA.
    """
    context = _server_context(pair, ssl.TLSVersion.TLSv1_3)
    on_expired(_trust(context, trusted, judge))

    class Reporting(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
                ca_bundle.refuse_long_chain(self)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as refused:
                on_refused(refused)
                raise

    context.sslobject_class = Reporting
    return context


def server_context(pair: KeyPair) -> ssl.SSLContext:
    """TLS 1.2 or 1.3 for anyone: the public listener where no proxy ends TLS in front of us."""
    return _server_context(pair, ssl.TLSVersion.TLSv1_2)


def _server_context(pair: KeyPair, minimum: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = minimum
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    load_key_pair(context, pair)
    return context


def load_key_pair(context: ssl.SSLContext, pair: KeyPair) -> None:
    """Let `context` present this certificate chain. Raises CredentialFault."""
    for file in (pair.certificate, pair.key):
        read_pem(file)
    try:
        context.load_cert_chain(pair.certificate, pair.key)
    except ssl.SSLError as error:
        names = " and ".join(dict.fromkeys((str(pair.certificate), str(pair.key))))
        raise CredentialFault(f"{names}: {error.reason or 'no PEM certificate and key'}") from None


def _trust(context: ssl.SSLContext, trusted: Path, judge: CaCheck) -> tuple[str, ...]:
    try:
        return ca_bundle.trust_only(context, read_pem(trusted), judge, wall)
    except ca_bundle.InvalidCaBundle as unfit:
        raise CredentialFault(f"{trusted}: {unfit}") from None


def read_pem(file: Path) -> str:
    """The text of a PEM file that is not empty. Raises CredentialFault."""
    try:
        text = file.read_text("ascii")
    except FileNotFoundError:
        raise CredentialFault(f"{file}: no such file") from None
    except OSError as error:
        raise CredentialFault(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CredentialFault(f"{file}: not PEM") from None
    if not text.strip():
        raise CredentialFault(f"{file}: empty")
    return text
