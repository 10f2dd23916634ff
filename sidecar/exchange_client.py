"""One mTLS call to the authserver: a JWT goes out, a token or a refusal comes back."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final
from urllib.parse import urlencode

from chassis.clock import Clock
from chassis.http1.client import Client, ServerResponse
from chassis.http1.limits import Limits
from chassis.http1.no_response import Disconnected, NoResponse, Unreachable, Untrusted
from chassis.logs import Log
from chassis.request_ids import outgoing_headers
from sidecar.authserver_client import AuthserverClient
from sidecar.cached_token import Token
from sidecar.client_credential import OwnCredential
from sidecar.clocks import Clocks
from sidecar.errors import DENIALS, TEMPORARILY_UNAVAILABLE, ApiError
from sidecar.exchange_response import read_answer
from sidecar.metrics import Metrics
from sidecar.outage_log import OutageLog
from sidecar.retry import PAUSES, RetryBudget, pause_before_retry
from sidecar.token_request import TokenRequest

_log = Log("exchange_client")

ROUTE: Final = "/internal/token-exchange"
GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"

# Idle for less than the authserver's own limit, so that it is us who close, never in mid-request.
_LIMITS: Final = Limits(body_bytes=64 * 1024, connections=32, idle_seconds=30.0)

_HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Content-Type": "application/x-www-form-urlencoded",
    "User-Agent": "tokenward-sidecar",
}


class ExchangeClient:
    """Exchanges JWTs at `url` with the credential of the moment.

    `now` is a monotonic clock; `jitter` draws from 0 to 1.
    """

    def __init__(
        self,
        url: str,
        credential: OwnCredential,
        metrics: Metrics,
        clocks: Clocks,
        *,
        now: Clock,
        jitter: Callable[[], float],
        total_seconds: float,
    ) -> None:
        self._client = AuthserverClient(url, credential, _LIMITS)
        self._metrics, self._clocks = metrics, clocks
        self._now, self._jitter, self._total_seconds = now, jitter, total_seconds
        self._budget = RetryBudget()
        self._outages = OutageLog()

    async def exchange(self, unverified_jwt: str, token_request: TokenRequest) -> Token | ApiError:
        """One exchange, tried again only where none took place; raises nothing of the network."""
        started = self._now()
        try:
            async with asyncio.timeout(self._total_seconds):
                outcome = await self._attempts(_form(unverified_jwt, token_request), token_request)
        except TimeoutError:
            outcome = TEMPORARILY_UNAVAILABLE.with_reason("timeout")
        result = "ok" if isinstance(outcome, Token) else outcome.error
        self._metrics.exchanged(result, self._now() - started)
        self._report(outcome)
        return outcome

    def renew(self) -> Client | None:
        """Leave the connections of a replaced credential, so that the new one takes over now.

        Exchanges under way end on the old ones.
        """
        return self._client.renew()

    def close(self) -> None:
        """Close idle connections now, and the others after their exchange."""
        self._client.close()

    async def _attempts(self, form: bytes, token_request: TokenRequest) -> Token | ApiError:
        for pause in PAUSES:
            outcome = await self._attempt(form, token_request)
            if isinstance(outcome, Token):
                self._budget.earn()
                return outcome
            wait = pause_before_retry(outcome, pause * self._jitter())
            if wait is None or not self._budget.spend():
                return outcome
            await asyncio.sleep(wait)
        return await self._attempt(form, token_request)

    async def _attempt(self, form: bytes, token_request: TokenRequest) -> Token | ApiError:
        client = self.renew()
        if client is None:
            return TEMPORARILY_UNAVAILABLE.with_reason("credential_not_ready")
        headers = _HEADERS | outgoing_headers()
        try:
            response = await client.request("POST", ROUTE, headers.items(), form)
        except Untrusted as refused:
            return replace(
                TEMPORARILY_UNAVAILABLE, reason="untrusted", detail=_verify_message(refused)
            )
        except Disconnected:
            return TEMPORARILY_UNAVAILABLE.with_reason("disconnected")
        except Unreachable:
            return TEMPORARILY_UNAVAILABLE.with_reason("unreachable")
        except NoResponse:
            return TEMPORARILY_UNAVAILABLE.with_reason("unexpected_answer")
        self._clocks.heard(response.headers.get("date") or "")
        return _read(response, token_request)

    def _report(self, outcome: Token | ApiError) -> None:
        if isinstance(outcome, Token) or outcome.error in DENIALS:
            self._outages.end()
        else:
            self._outages.report(outcome.reason, outcome.detail, self._now())
        if isinstance(outcome, Token):
            _log.debug("exchanged", upstream=outcome.upstream)
        elif outcome.error in DENIALS:
            _log.info("exchange_denied", error=outcome.error)


def _verify_message(refused: Untrusted) -> str:
    """OpenSSL's reason: it names a rule or a host name, never a secret."""
    cause = refused.__cause__
    return getattr(cause, "verify_message", None) or getattr(cause, "reason", None) or ""


def _read(response: ServerResponse, token_request: TokenRequest) -> Token | ApiError:
    content_type = response.headers.get("content-type") or ""
    return read_answer(
        response.status,
        content_type.partition(";")[0].strip().lower(),
        response.headers.get("retry-after"),
        response.body,
        token_request=token_request,
    )


def _form(unverified_jwt: str, token_request: TokenRequest) -> bytes:
    members = {
        "grant_type": GRANT_TYPE,
        "subject_token": unverified_jwt,
        "subject_token_type": JWT_TYPE,
    }
    if token_request.upstream is not None:
        members["audience"] = token_request.upstream
    if token_request.min_ttl:
        members["min_ttl"] = str(token_request.min_ttl)
    if token_request.rejected is not None:
        members["rejected_token_sha256"] = token_request.rejected
    for name in ("missing_scope", "target_audience", "scope"):
        if (value := getattr(token_request, name)) is not None:
            members[name] = value
    # The colons of the names above mean themselves; escaping them costs the authserver its while.
    return urlencode(members, safe=":").encode()
