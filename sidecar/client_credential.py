"""This workload's certificate: waited for while absent, replaced when its files change.

The volume may be filled after we start, and a certificate may be the wrong one; neither ends the
process. Until there is a certificate that names exactly this workload, we are not ready.

A renewed certificate waits for a minute while the old one is good: an authserver whose clock is
behind ours would not take it yet.
"""

import ssl
from pathlib import Path
from typing import Final

from chassis.clock import Clock
from chassis.logs import Log
from chassis.probes import Readiness
from chassis.tls import ca_bundle
from chassis.tls.contexts import CredentialFault, KeyPair, client_context
from chassis.tls.reload import ContextReloader, RenewalDeferred
from chassis.tls.self_handshake import Certificate, verify_key_pair
from sidecar.metrics import Metrics

_log = Log("client_credential")

CREDENTIAL: Final = "credential"  # the readiness condition
_MIN_CERTIFICATE_AGE_SECONDS: Final = 60
_LAST_SECONDS: Final = 120
_FILES: Final = ("credential-bundle.pem", "tls.crt", "tls.key")


class OwnCredential:
    """Certificate, key and the authserver's CA, as one TLS client context; `wall` is Unix time."""

    def __init__(
        self,
        directory: Path,
        trusted: Path,
        spiffe_id: str,
        *,
        readiness: Readiness,
        metrics: Metrics,
        wall: Clock,
    ) -> None:
        self._directory, self._trusted, self._spiffe_id = directory, trusted, spiffe_id
        self._readiness, self._metrics, self._wall = readiness, metrics, wall
        self._reloading: ContextReloader | None = None
        self._complaint = ""
        self._trusts: list[str] = []
        self.poll()

    @property
    def context(self) -> ssl.SSLContext | None:
        """What new connections use; it stays one object from rotation to rotation."""
        return None if self._reloading is None else self._reloading.context

    @property
    def generation(self) -> int:
        """Counts the credentials in use so far; 0 while there is none."""
        return 0 if self._reloading is None else self._reloading.generation

    def poll(self) -> None:
        """Look at the files; called every few seconds."""
        if self._reloading is None:
            self._reloading = self._first()
        else:
            self._reloading.poll()
        if self._reloading is not None:
            self._judge(self._reloading.certificate)
            self._say_whom_we_trust(self._reloading.context.current)

    def _first(self) -> ContextReloader | None:
        files = [*(self._directory / name for name in _FILES), self._trusted]
        reloaded = self._metrics.credential_reloaded
        try:
            reloading = ContextReloader("client", self._build, files, on_reload=reloaded)
        except CredentialFault as fault:
            self._complain(str(fault))
            return None
        _log.info(
            "credential_loaded", spiffe_id=self._spiffe_id, serial=reloading.certificate.serial
        )
        return reloading

    def _build(self) -> tuple[ssl.SSLContext, Certificate]:
        pair = KeyPair.in_directory(self._directory)
        certificate = verify_key_pair(pair, as_client=True)
        if certificate.uris != (self._spiffe_id,):
            named = ", ".join(certificate.uris) or "nobody"
            raise CredentialFault(f"{pair.certificate}: names {named}, not this workload alone")
        context = client_context(pair, self._trusted, self._report_expired)
        if self._reloading is not None and self._is_too_new(certificate):
            raise RenewalDeferred
        return context, certificate

    def _report_expired(self, fingerprints: tuple[str, ...]) -> None:
        self._metrics.expired_cas(len(fingerprints))
        if fingerprints:
            _log.warning("expired_cas_left_out", file=str(self._trusted), sha256=fingerprints)

    def _is_too_new(self, renewed: Certificate) -> bool:
        assert self._reloading is not None
        current, now = self._reloading.certificate, self._wall()
        return (
            renewed.serial != current.serial
            and now - renewed.not_before < _MIN_CERTIFICATE_AGE_SECONDS
            and current.not_after - now > _LAST_SECONDS
        )

    def _say_whom_we_trust(self, context: ssl.SSLContext) -> None:
        """Whoever swaps the bundle is seen in the log."""
        fingerprints = ca_bundle.fingerprints(context)
        if fingerprints != self._trusts:
            self._trusts = fingerprints
            _log.info("authserver_ca_trusted", file=str(self._trusted), sha256=fingerprints)

    def _judge(self, certificate: Certificate) -> None:
        """An expired certificate is still tried, our clock may be wrong; but it is said."""
        self._metrics.credential_expires(certificate.not_after)
        if self._wall() >= certificate.not_after:
            self._readiness.clear(CREDENTIAL)
            self._complain("the certificate has expired and was not replaced")
        else:
            self._complaint = ""
            self._readiness.satisfy(CREDENTIAL)

    def _complain(self, problem: str) -> None:
        if problem != self._complaint:
            self._complaint = problem
            _log.warning("credential_unusable", problem=problem)
