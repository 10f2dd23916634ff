"""One mTLS call to the authserver: a JWT goes out, a token or a refusal comes back."""

import asyncio
from collections.abc import Callable
from typing import Final
from urllib.parse import urlencode

import aiohttp

from chassis.logs import Log
from chassis.request_ids import outgoing_headers
from sidecar.cached_token import Token
from sidecar.client_credential import OwnCredential
from sidecar.connection_pool import ConnectionPool
from sidecar.errors import DENIALS, TEMPORARILY_UNAVAILABLE, ApiError
from sidecar.exchange_response import read_answer
from sidecar.metrics import Metrics
from sidecar.token_request import TokenRequest

_log = Log("exchange")

ROUTE: Final = "/internal/token-exchange"
GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"

MAX_ANSWER_BYTES: Final = 64 * 1024

_PAUSES: Final = (0.1, 0.3)  # before the second and the third attempt, at most
_MAX_PAUSE_SECONDS: Final = 1.0
_RETRIED: Final = frozenset({"unreachable", "disconnected", "unavailable"})
_REPEAT_SECONDS: Final = 30.0

_HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Content-Type": "application/x-www-form-urlencoded",
    "User-Agent": "tokenward-sidecar",
}

_EXPLAINED: Final = {
    "credential_not_ready": "this workload's certificate is not there yet",
    "unreachable": "no connection to the authserver",
    "disconnected": "the authserver closed the connection without an answer:"
    " it does not accept this workload's certificate, or it is restarting",
    "untrusted": "the authserver's certificate is not of TOKENWARD_AUTHSERVER_CA_FILE,"
    " or not for the host name in TOKENWARD_AUTHSERVER_URL",
    "identity_refused": "the authserver does not let this workload's SPIFFE ID in",
    "timeout": "the authserver did not answer in time",
    "unexpected_answer": "what answers at TOKENWARD_AUTHSERVER_URL is not the authserver",
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
        *,
        now: Callable[[], float],
        jitter: Callable[[], float],
        total_seconds: float,
    ) -> None:
        self._url = url.rstrip("/") + ROUTE
        self._credential, self._metrics = credential, metrics
        self._now, self._jitter, self._total_seconds = now, jitter, total_seconds
        self._pool: ConnectionPool | None = None
        self._budget = _RetryBudget()
        self._trouble = _Trouble()

    async def exchange(self, unverified_jwt: str, token_request: TokenRequest) -> Token | ApiError:
        """One exchange, tried again only where none took place; raises nothing of the network."""
        started = self._now()
        try:
            async with asyncio.timeout(self._total_seconds):
                outcome = await self._attempts(
                    _form(unverified_jwt, token_request), token_request.upstream
                )
        except TimeoutError:
            outcome = TEMPORARILY_UNAVAILABLE.with_reason("timeout")
        result = "ok" if isinstance(outcome, Token) else outcome.error
        self._metrics.exchanged(result, self._now() - started)
        self._report(outcome)
        return outcome

    async def renew(self) -> ConnectionPool | None:
        """Leave the connections of a replaced credential, so that the new one takes over now."""
        context, generation = self._credential.context, self._credential.generation
        current = self._pool
        if current is None or current.generation != generation:
            self._pool = ConnectionPool(context, generation) if context is not None else None
            if current is not None:
                await current.retire()
        return self._pool

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()

    async def _attempts(self, form: bytes, asked: str | None) -> Token | ApiError:
        for pause in _PAUSES:
            outcome = await self._attempt(form, asked)
            if isinstance(outcome, Token):
                self._budget.earn()
                return outcome
            wait = max(pause * self._jitter(), float(outcome.retry_after or 0))
            if (
                outcome.reason not in _RETRIED
                or wait > _MAX_PAUSE_SECONDS
                or not self._budget.spend()
            ):
                return outcome
            await asyncio.sleep(wait)
        return await self._attempt(form, asked)

    async def _attempt(self, form: bytes, asked: str | None) -> Token | ApiError:
        pool = await self.renew()
        if pool is None:
            return TEMPORARILY_UNAVAILABLE.with_reason("credential_not_ready")
        try:
            async with pool.post(self._url, form, _HEADERS | outgoing_headers()) as response:
                body = await _read_capped(response)
                return read_answer(
                    response.status,
                    response.content_type,
                    response.headers.get("Retry-After"),
                    body,
                    asked=asked,
                )
        except aiohttp.ClientSSLError:
            return TEMPORARILY_UNAVAILABLE.with_reason("untrusted")
        except aiohttp.ServerDisconnectedError:
            return TEMPORARILY_UNAVAILABLE.with_reason("disconnected")
        except aiohttp.ClientConnectionError:
            return TEMPORARILY_UNAVAILABLE.with_reason("unreachable")
        except aiohttp.ClientError:
            return TEMPORARILY_UNAVAILABLE.with_reason("unexpected_answer")

    def _report(self, outcome: Token | ApiError) -> None:
        if isinstance(outcome, Token) or outcome.error in DENIALS:
            self._trouble.ends()
        else:
            self._trouble.is_(outcome.reason, self._now())
        if isinstance(outcome, Token):
            _log.debug("exchanged", upstream=outcome.upstream)
        elif outcome.error in DENIALS:
            _log.info("exchange_denied", error=outcome.error)


class _Trouble:
    """Says once what keeps us from the authserver, and once that it is over.

    The same trouble is repeated every half minute, not with every call that meets it.
    """

    def __init__(self) -> None:
        self._reason, self._said_at = "", 0.0

    def is_(self, reason: str, now: float) -> None:
        if reason != self._reason or now - self._said_at >= _REPEAT_SECONDS:
            self._reason, self._said_at = reason, now
            _log.warning("exchange_failed", reason=reason, problem=_EXPLAINED.get(reason))

    def ends(self) -> None:
        if self._reason:
            _log.info("exchange_works_again", after=self._reason)
            self._reason = ""


class _RetryBudget:
    """Allows a burst of retries, then one for every ten exchanges that worked.

    When the authserver is down every exchange wants to be repeated; without a budget its
    recovery would meet three times the load.
    """

    _BURST: Final = 10.0
    _EARNED: Final = 0.1

    def __init__(self) -> None:
        self._left = self._BURST

    def spend(self) -> bool:
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def earn(self) -> None:
        self._left = min(self._BURST, self._left + self._EARNED)


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
    # The colons of the names above mean themselves; escaping them costs the authserver its while.
    return urlencode(members, safe=":").encode()


async def _read_capped(response: aiohttp.ClientResponse) -> bytes:
    """The body, or nothing of one that is longer than any answer of the authserver."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            response.close()
            return b""
    return bytes(body)
