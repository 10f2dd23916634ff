"""The mTLS listener: one route, for workloads only. No identity comes from anything but TLS.

Everything that can be refused from the connection and the request's form is refused here, in the
order of the release policy, before the JWT is looked at; `exchange` goes on from there.
"""

import asyncio
import ssl
import time
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec
from aiohttp import web

from authserver.audit import Audit, AuditRecord
from authserver.internal.denial_reasons import DenialReason
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
from authserver.storage.contract import StorageUnavailable
from authserver.storage.keyring import DecryptionFailed
from authserver.tokens.access_tokens import VerifiedClaims
from chassis.clock import Clock
from chassis.connection_limits import LimitedHandler
from chassis.event_loop import yield_to_ready
from chassis.logs import Log, LogWriteFailed, request_scope
from chassis.request_ids import caller_request_id, new_request_id

_log = Log("internal")

ROUTE: Final = "/internal/token-exchange"
_FORM: Final = "application/x-www-form-urlencoded"
_MAX_BODY_BYTES: Final = 16 * 1024
_HEADERS: Final = {
    "Content-Type": "application/json",
    "Cache-Control": "no-store",
    "Pragma": "no-cache",
    "X-Content-Type-Options": "nosniff",
}


@dataclass
class _Peer:
    """What is known of a connection's other end: since when, and its certificate once read."""

    since: float
    svid: Svid | None = None


@dataclass(frozen=True)
class Timeouts:
    """In seconds: how long a body may take to arrive, and a connection may live."""

    body: float = 10
    connection: float = 600


class Internal:
    """The low-level handler of the internal listener."""

    def __init__(
        self,
        exchange: Exchange,
        svids: SvidReader,
        workload_policy: WorkloadPolicy,
        audit: Audit,
        metrics: Metrics,
        clock: Clock,
        timeouts: Timeouts,
    ) -> None:
        self._exchange, self._svids = exchange, svids
        self._workload_policy = workload_policy
        self._audit, self._metrics = audit, metrics
        self._clock, self._timeouts = clock, timeouts

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        started = time.perf_counter()
        # A sidecar sends the id of its own caller's request: one id in the logs of both.
        request_id = caller_request_id(request.headers) or new_request_id()
        with request_scope(request_id):
            if request.raw_path.partition("?")[0] != ROUTE:
                answer = _json(404, {"error": "not_found"})
                route = "unmatched"
            else:
                answer = await self._answer(request)
                route = ROUTE
        answer.headers["X-Request-Id"] = request_id
        if self._is_old(self._peer(request)):
            answer.force_close()
        self._metrics.requests_of(route, answer.status).inc()
        self._metrics.request_seconds_of(route).observe(time.perf_counter() - started)
        await yield_to_ready()
        return answer

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        record = AuditRecord()
        try:
            body, refreshed = await self._release(request, record)
            await yield_to_ready()
            # The record stands before the token leaves.
            self._audit.release(record, refreshed=refreshed)
        except ProtocolError as refusal:
            return self._refused(refusal, record)
        except DecryptionFailed:
            _log.error("sealed_record_unreadable")
            return self._refused(TemporarilyUnavailable(DenialReason.DECRYPTION_FAILED), record)
        except StorageUnavailable:
            return self._refused(TemporarilyUnavailable(DenialReason.STORAGE_UNAVAILABLE), record)
        except LogWriteFailed:
            return self._refused(TemporarilyUnavailable(DenialReason.AUDIT_LOST), record)
        except Exception as error:  # noqa: BLE001 - the edge: whatever it was, nothing is released
            _log.failure("request_failed", error)
            return self._refused(ProtocolError(DenialReason.UNEXPECTED), record)
        result = "refreshed" if refreshed else "stored"
        self._metrics.releases_of(record.upstream, result).inc()
        return _json(200, body)

    async def _release(
        self, request: web.BaseRequest, record: AuditRecord
    ) -> tuple[dict[str, Any], bool]:
        """The answer's body, and whether the token was refreshed for it; `record` says how far
        the request got.
        """
        svid = self._svid(request)
        record.spiffe_id, record.certificate_serial = svid.spiffe_id, svid.serial
        record.certificate_sha256 = svid.fingerprint
        self._check_admitted(svid, self._clock())
        exchange_request = parse(await self._fields(request))
        try:
            claims = self._exchange.verify(svid.workload, exchange_request.unverified_jwt)
        except SubjectTokenRejected as refused:
            if refused.claims is not None:
                self._note(record, refused.claims)
            raise
        self._note(record, claims)
        target = await self._exchange.authorize(svid.workload, claims, exchange_request.upstream)
        record.upstream = target.upstream
        released = await self._exchange.release(target, claims, exchange_request)
        return self._body(released, claims, svid), released.refreshed

    def _note(self, record: AuditRecord, claims: VerifiedClaims) -> None:
        record.jti = self._audit.pseudonym("jti", claims.jti)
        record.user = self._audit.pseudonym("user", claims.subject)
        record.session = self._audit.pseudonym("session", claims.tsid)
        record.client, record.resource = claims.client_id, claims.audience

    async def _fields(self, request: web.BaseRequest) -> dict[str, str]:
        if request.method != "POST" or request.version < (1, 1):
            raise InvalidRequest(DenialReason.NOT_AN_HTTP_1_1_POST)
        if "?" in request.raw_path:
            raise InvalidRequest(DenialReason.QUERY_STRING)
        if request.content_type != _FORM or "Content-Encoding" in request.headers:
            raise InvalidRequest(DenialReason.MEDIA_TYPE)
        try:
            # A body usually came with its head: then there is nothing to wait for.
            if request.content.is_eof():
                return form_fields(_small(request.content.read_nowait()))
            async with asyncio.timeout(self._timeouts.body):
                return form_fields(await _body_of(request))
        except TimeoutError:
            raise InvalidRequest(DenialReason.SLOW_BODY) from None
        except (ConnectionError, web.RequestPayloadError):
            raise InvalidRequest(DenialReason.BODY_CUT_OFF) from None
        except Malformed:
            raise InvalidRequest(DenialReason.MALFORMED_FORM) from None

    def _svid(self, request: web.BaseRequest) -> Svid:
        """The peer's certificate, read once for each connection."""
        peer = self._peer(request)
        if peer.svid is not None:
            return peer.svid
        tls = request.transport.get_extra_info("ssl_object") if request.transport else None
        der = tls.getpeercert(binary_form=True) if isinstance(tls, ssl.SSLObject) else None
        if der is None:
            raise InvalidClient(DenialReason.NO_CLIENT_CERTIFICATE)
        try:
            peer.svid = self._svids.read(der)
        except InvalidSvid as refused:
            raise InvalidClient(refused.reason) from None
        return peer.svid

    def _check_admitted(self, svid: Svid, now: float) -> None:
        """On every request: a connection outlives certificates, policies and our own names."""
        if not svid.valid(now):
            raise InvalidClient(DenialReason.CERTIFICATE_NOT_VALID_NOW)
        if self._svids.impersonates_us(svid):
            raise InvalidClient(DenialReason.CERTIFICATE_NAMES_THE_AUTHSERVER)
        if (
            svid.serial in self._workload_policy.denied.serials
            or svid.spiffe_id in self._workload_policy.denied.spiffe_ids
        ):
            raise ForbiddenClient(DenialReason.CERTIFICATE_DENIED)
        if not self._workload_policy.allowed.admit(svid.workload):
            raise ForbiddenClient(DenialReason.WORKLOAD_NOT_ALLOWED)

    def _refused(self, refusal: ProtocolError, record: AuditRecord) -> web.Response:
        try:
            reason = DenialReason(refusal.reason)
        except ValueError:
            # A label outside the closed list would be a fault of ours, and no caller's to choose.
            _log.error("unlisted_denial_reason")
            reason = DenialReason.UNEXPECTED
        self._audit.denial(record, reason=reason.value, error=refusal.error)
        self._metrics.denials.labels(reason.value).inc()
        answer = _json(refusal.status_code, refusal.members(), refusal.headers)
        if isinstance(refusal, InvalidClient):
            answer.force_close()
        return answer

    def _body(self, released: ReleasedToken, claims: VerifiedClaims, svid: Svid) -> dict[str, Any]:
        """The members of a success; handles differ from owner to owner."""
        owner, upstream = str(svid.workload), released.upstream
        body: dict[str, Any] = {
            "access_token": released.access_token,
            "issued_token_type": ACCESS_TOKEN_TYPE,
            "token_type": "Bearer",
            "upstream": upstream,
            "cache_ttl": released.cache_ttl,
            "session": self._audit.handle("session", owner, claims.tsid),
            "connection": self._audit.handle("connection", owner, claims.subject, upstream),
            "sub": claims.subject,
            "client_id": claims.client_id,
        }
        if released.expires_in is not None:
            body["expires_in"] = released.expires_in
        if released.scope is not None:
            body["scope"] = released.scope
        return body

    def _is_old(self, peer: _Peer) -> bool:
        """Whether the connection should end, so that a new handshake looks at the peer again.

        A connection older than the time that the clock was set back to is as old as can be.
        """
        return not 0 <= self._clock() - peer.since <= self._timeouts.connection

    def _peer(self, request: web.BaseRequest) -> _Peer:
        """What is known of the peer, kept at the connection."""
        connection = cast(LimitedHandler, request.protocol)
        if not isinstance(connection.peer, _Peer):
            connection.peer = _Peer(self._clock())
        return connection.peer


async def _body_of(request: web.BaseRequest) -> bytes:
    body = b""
    async for part in request.content.iter_any():
        body = _small(body + part)
    return body


def _small(body: bytes) -> bytes:
    if len(body) > _MAX_BODY_BYTES:
        raise InvalidRequest(DenialReason.BODY_TOO_LARGE)
    return body


def _json(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode(body),
        headers=_HEADERS | headers if headers else _HEADERS,
    )
