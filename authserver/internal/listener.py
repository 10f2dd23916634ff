"""The mTLS listener: one route, for workloads only. No identity comes from anything but TLS.

Everything that can be refused from the connection and the request's form is refused here, in the
order of the release policy, before the JWT is looked at; `exchange` goes on from there.
"""

import asyncio
import ssl
import time
from random import getrandbits
from typing import Any, Final

import msgspec
from aiohttp import web

from authserver.audit import Audit
from authserver.internal.exchange_request import ACCESS_TOKEN_TYPE, parse
from authserver.internal.svid import InvalidSvid, Svid, SvidReader
from authserver.internal.token_exchange import (
    Exchange,
    ReleasedToken,
    SubjectTokenRejected,
)
from authserver.internal.workload_policy import WorkloadPolicy
from authserver.metrics import Metrics
from authserver.oauth.errors import (
    ForbiddenClient,
    InvalidClient,
    InvalidRequest,
    ProtocolError,
    TemporarilyUnavailable,
)
from authserver.oauth.parsing import Malformed, form_fields
from authserver.rate_limit import RateLimit
from authserver.storage.contract import StorageUnavailable
from authserver.storage.keyring import DecryptionFailed
from chassis.clock import Clock
from chassis.event_loop import yield_to_ready
from chassis.logs import Log, LogWriteFailed, request_scope

_log = Log("internal")

ROUTE: Final = "/internal/token-exchange"
_FORM: Final = "application/x-www-form-urlencoded"
_MAX_BODY_BYTES: Final = 16 * 1024
_BODY_SECONDS: Final = 10
_MAX_CONNECTION_SECONDS: Final = 600
_SVID: Final = "tokenward_svid"
_SINCE: Final = "tokenward_since"
_HEADERS: Final = {
    "Content-Type": "application/json",
    "Cache-Control": "no-store",
    "Pragma": "no-cache",
    "X-Content-Type-Options": "nosniff",
}


class Internal:
    """The low-level handler of the internal listener."""

    def __init__(
        self,
        exchange: Exchange,
        svids: SvidReader,
        workload_policy: WorkloadPolicy,
        releases: RateLimit,
        failures: RateLimit,
        audit: Audit,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._exchange, self._svids = exchange, svids
        self._workload_policy = workload_policy
        self._releases, self._failures = releases, failures
        self._audit, self._metrics = audit, metrics
        self._clock = clock

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        started, request_id = time.perf_counter(), f"{getrandbits(64):016x}"
        with request_scope(request_id):
            if request.raw_path.partition("?")[0] != ROUTE:
                answer = _json(404, {"error": "not_found"})
                route = "unmatched"
            else:
                answer = await self._answer(request)
                route = ROUTE
        answer.headers["X-Request-Id"] = request_id
        if self._is_old(_peer(request)):
            answer.force_close()
        self._metrics.requests_of(route, answer.status).inc()
        self._metrics.request_seconds_of(route).observe(time.perf_counter() - started)
        await yield_to_ready()
        return answer

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        facts: dict[str, Any] = {}
        try:
            released = await self._release(request, facts)
            await yield_to_ready()
            # The record stands before the token leaves.
            self._audit.release(refreshed=released.refreshed, **facts)
        except ProtocolError as refusal:
            return self._refused(refusal, facts)
        except DecryptionFailed:
            _log.error("sealed_record_unreadable")
            return self._refused(TemporarilyUnavailable("seal_broken"), facts)
        except StorageUnavailable:
            return self._refused(TemporarilyUnavailable("storage_down"), facts)
        except LogWriteFailed:
            return self._refused(TemporarilyUnavailable("audit_lost"), facts)
        except Exception as error:  # noqa: BLE001 - the edge: whatever it was, nothing is released
            _log.failure("request_failed", error)
            return self._refused(ProtocolError("unexpected"), facts)
        result = "refreshed" if released.refreshed else "stored"
        self._metrics.releases_of(released.upstream, result).inc()
        return _json(200, _body(released))

    async def _release(self, request: web.BaseRequest, facts: dict[str, Any]) -> ReleasedToken:
        svid = self._svid(request)
        facts |= {"spiffe_id": svid.spiffe_id, "certificate_serial": svid.serial}
        facts["certificate_sha256"] = svid.fingerprint
        now = self._clock()
        self._check_admitted(svid, now)
        self._failures.check(svid.spiffe_id, now)
        self._releases.take(svid.spiffe_id, now)
        asked = parse(await _fields(request))
        try:
            return await self._exchange.release(svid.workload, asked, facts)
        except SubjectTokenRejected:
            self._failures.take(svid.spiffe_id, now)
            raise

    def _svid(self, request: web.BaseRequest) -> Svid:
        """The peer's certificate, read once for each connection."""
        peer = _peer(request)
        known: Svid | None = peer.get(_SVID)
        if known is not None:
            return known
        tls = request.transport.get_extra_info("ssl_object") if request.transport else None
        der = tls.getpeercert(binary_form=True) if isinstance(tls, ssl.SSLObject) else None
        if der is None:
            raise InvalidClient("no_client_certificate")
        try:
            svid = peer[_SVID] = self._svids.read(der)
        except InvalidSvid as refused:
            raise InvalidClient(str(refused)) from None
        return svid

    def _check_admitted(self, svid: Svid, now: float) -> None:
        """On every request: a connection outlives certificates, policies and our own names."""
        if not svid.valid(now):
            raise InvalidClient("certificate_not_valid_now")
        if self._svids.impersonates_us(svid):
            raise InvalidClient("certificate_names_the_authserver")
        if (
            svid.serial in self._workload_policy.denied.serials
            or svid.spiffe_id in self._workload_policy.denied.spiffe_ids
        ):
            raise ForbiddenClient("certificate_denied")
        if not self._workload_policy.allowed.admit(svid.workload):
            raise ForbiddenClient("workload_not_allowed")

    def _refused(self, refusal: ProtocolError, facts: dict[str, Any]) -> web.Response:
        self._audit.denial(refusal.reason, error=refusal.error, **facts)
        self._metrics.denials.labels(refusal.reason).inc()
        answer = _json(refusal.status_code, refusal.members(), refusal.headers)
        if isinstance(refusal, InvalidClient):
            answer.force_close()
        return answer

    def _is_old(self, peer: dict[str, Any]) -> bool:
        """Whether the connection should end, so that a new handshake looks at the peer again.

        A connection older than the time that the clock was set back to is as old as can be.
        """
        now = self._clock()
        since: float = peer.setdefault(_SINCE, now)
        return not 0 <= now - since <= _MAX_CONNECTION_SECONDS


def _peer(request: web.BaseRequest) -> dict[str, Any]:
    """What is known of a connection's peer; empty where there is no connection any more.

    The decoded certificate is one dictionary from the handshake to the connection's end, and the
    only place that lives exactly as long as it: what we know of the peer is kept beside it.
    """
    transport = request.transport
    return (transport.get_extra_info("peercert") if transport else None) or {}


async def _fields(request: web.BaseRequest) -> dict[str, str]:
    if request.method != "POST" or request.version < (1, 1):
        raise InvalidRequest("not_an_http_1_1_post")
    if "?" in request.raw_path:
        raise InvalidRequest("query_string")
    if request.content_type != _FORM or "Content-Encoding" in request.headers:
        raise InvalidRequest("media_type")
    try:
        # A body usually came with its head: then there is nothing to wait for.
        if request.content.is_eof():
            return form_fields(_small(request.content.read_nowait()))
        async with asyncio.timeout(_BODY_SECONDS):
            return form_fields(await _body_of(request))
    except TimeoutError:
        raise InvalidRequest("slow_body") from None
    except (ConnectionError, web.RequestPayloadError):
        raise InvalidRequest("body_cut_off") from None
    except Malformed:
        raise InvalidRequest("malformed_form") from None


async def _body_of(request: web.BaseRequest) -> bytes:
    body = b""
    async for part in request.content.iter_any():
        body = _small(body + part)
    return body


def _small(body: bytes) -> bytes:
    if len(body) > _MAX_BODY_BYTES:
        raise InvalidRequest("body_too_large")
    return body


def _body(released: ReleasedToken) -> dict[str, Any]:
    body: dict[str, Any] = {
        "access_token": released.access_token,
        "issued_token_type": ACCESS_TOKEN_TYPE,
        "token_type": "Bearer",
        "upstream": released.upstream,
        "cache_ttl": released.cache_ttl,
    }
    if released.expires_in is not None:
        body["expires_in"] = released.expires_in
    if released.scope is not None:
        body["scope"] = released.scope
    return body


def _json(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode(body),
        headers=_HEADERS | headers if headers else _HEADERS,
    )
