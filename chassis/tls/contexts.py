"""Certificate and key files -> TLS contexts that are rebuilt and swapped when the files change.

A live context is never patched: a failed load ruins it, and a removed CA would stay trusted.
A new context is built beside the old one, proves itself in a handshake with itself, and only
then takes its place; whatever is wrong with the new files, the old context goes on serving.
"""

import os
import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from chassis.clock import wall
from chassis.file_watch import FileWatch, poll_forever
from chassis.logs import Log
from chassis.tls import ca_bundle
from chassis.tls.ca_bundle import CaCheck

_log = Log("credential")

_CERTIFICATE_PEM: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL
)


class CredentialFault(Exception):
    """A certificate, key or CA file cannot be used; the text names the file and what is wrong."""


class RenewalDeferred(Exception):
    """A credential works, and the one in use goes on for a little longer."""


@dataclass(frozen=True)
class Certificate:
    """What a process needs to know of its own certificate."""

    uris: tuple[str, ...]
    dns_names: tuple[str, ...]
    serial: str
    not_before: float
    not_after: float


@dataclass(frozen=True)
class KeyPair:
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


class ReloadingContext(ssl.SSLContext):
    """An SSLContext that hands every new connection to the context current at that moment.

    asyncio and uvloop both wrap connections through `wrap_bio`, for servers and for clients.
    """

    current: ssl.SSLContext

    def __new__(cls, current: ssl.SSLContext) -> "ReloadingContext":
        context = super().__new__(cls, current.protocol)
        context.current = current
        return context

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        return self.current.wrap_bio(*arguments, **options)


def client_context(pair: KeyPair, trusted: Path) -> ssl.SSLContext:
    """TLS 1.3 with our certificate, towards servers of the CAs in `trusted` and no others."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = True
    _trust(context, trusted, ca_bundle.accept_any)
    _load(context, pair)
    return context


def mutual_server_context(
    pair: KeyPair,
    trusted: Path,
    on_refused: Callable[[ssl.SSLError], None],
    judge: CaCheck = ca_bundle.accept_any,
) -> ssl.SSLContext:
    """TLS 1.3 for clients that hold a certificate of one of the CAs in `trusted`; nobody else.

    No session tickets: a resumed session skips the certificate check, so an expired or replaced
    certificate would still get in. `on_refused` is called with the reason of every refused
    handshake; TLS 1.3 gives the peer no more than a closed connection. `judge` says what this
    module, which has no means of its own for it, cannot see in a CA.
    """
    context = _server_context(pair, ssl.TLSVersion.TLSv1_3)
    _trust(context, trusted, judge)

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
    _load(context, pair)
    return context


def _load(context: ssl.SSLContext, pair: KeyPair) -> None:
    for file in (pair.certificate, pair.key):
        _read(file)
    try:
        context.load_cert_chain(pair.certificate, pair.key)
    except ssl.SSLError as error:
        names = " and ".join(dict.fromkeys((str(pair.certificate), str(pair.key))))
        raise CredentialFault(f"{names}: {error.reason or 'no PEM certificate and key'}") from None


def _trust(context: ssl.SSLContext, trusted: Path, judge: CaCheck) -> None:
    try:
        ca_bundle.trust_only(context, _read(trusted), judge, wall)
    except ca_bundle.InvalidCaBundle as unfit:
        raise CredentialFault(f"{trusted}: {unfit}") from None


def _read(file: Path) -> str:
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


def verify_key_pair(pair: KeyPair, *, as_client: bool) -> Certificate:
    """Hold a TLS handshake with ourselves over this pair; say what its certificate carries.

    Proves, with OpenSSL and not with our own parsing, that the key fits, that the certificate is
    valid now and that its key usage allows the role. Raises CredentialFault.
    """
    leaf = _CERTIFICATE_PEM.search(_read(pair.certificate))
    if leaf is None:
        raise CredentialFault(f"{pair.certificate}: no certificate in it")
    prover, verifier = (
        (_bare_context(ssl.PROTOCOL_TLS_CLIENT), _bare_context(ssl.PROTOCOL_TLS_SERVER))
        if as_client
        else (_bare_context(ssl.PROTOCOL_TLS_SERVER), _bare_context(ssl.PROTOCOL_TLS_CLIENT))
    )
    for context in (prover, verifier):
        _load(context, pair)
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
        not_before=ssl.cert_time_to_seconds(peer["notBefore"]),
        not_after=ssl.cert_time_to_seconds(peer["notAfter"]),
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


class ContextReloader:
    """A context and the files it was made of; `poll` swaps in a new one when they changed.

    `build` makes a verified context and returns what its certificate carries. It raises
    CredentialFault, or RenewalDeferred unless it is the first call. `files` are polled for changes
    and may be links.
    """

    def __init__(
        self,
        name: str,
        build: Callable[[], tuple[ssl.SSLContext, Certificate]],
        files: Sequence[Path],
        *,
        on_reload: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._name, self._build, self._on_reload = name, build, on_reload
        self._watch = FileWatch(lambda: files)
        current, self.certificate = build()
        self.context = ReloadingContext(current)
        self.generation = 1

    def poll(self) -> bool:
        """Whether a new credential took over. A fault keeps the old one and is tried again."""
        if not self._watch.changed():
            return False
        try:
            current, certificate = self._build()
        except RenewalDeferred:
            return False
        except CredentialFault as fault:
            if self._watch.is_new_fault(str(fault)):
                _log.warning("credential_kept", credential=self._name, problem=str(fault))
                self._on_reload(False)
            return False
        self._watch.accept()
        self.context.current, self.certificate = current, certificate
        self.generation += 1
        _log.info("credential_reloaded", credential=self._name, serial=certificate.serial)
        self._on_reload(True)
        return True

    async def watch(self) -> None:
        """Poll until cancelled."""
        await poll_forever(self.poll)
