"""What keeps the sidecar from the authserver, in the log: once, and once that it is over."""

from typing import Final

from chassis.logs import Log

_log = Log("exchange_client")

_REPEAT_SECONDS: Final = 30.0

_EXPLAINED: Final = {
    "credential_not_ready": "this workload's certificate is not there yet",
    "unreachable": "no connection to the authserver",
    "disconnected": "the authserver closed the connection without an answer:"
    " it does not accept this workload's certificate, or it is restarting",
    "untrusted": "the authserver's certificate is refused: it, the CAs of"
    " TOKENWARD_AUTHSERVER_CA_FILE or the host name in TOKENWARD_AUTHSERVER_URL do not fit",
    "identity_refused": "the authserver does not let this workload's SPIFFE ID in",
    "timeout": "the authserver did not answer in time",
    "unexpected_answer": "what answers at TOKENWARD_AUTHSERVER_URL is not the authserver",
}


class OutageLog:
    """Logs an outage when it begins or changes, every half minute while it lasts, and its end."""

    def __init__(self) -> None:
        self._outage: tuple[str, str] | None = None
        self._logged_at = 0.0

    def report(self, reason: str, detail: str, now: float) -> None:
        """An exchange failed for `reason`; `detail` is OpenSSL's message, or empty."""
        outage = (reason, detail)
        if outage == self._outage and now - self._logged_at < _REPEAT_SECONDS:
            return
        self._outage, self._logged_at = outage, now
        more = {"openssl": detail} if detail else {}
        _log.warning("exchange_failed", reason=reason, problem=_EXPLAINED.get(reason), **more)

    def end(self) -> None:
        if self._outage is not None:
            _log.info("exchange_works_again", after=self._outage[0])
            self._outage = None
