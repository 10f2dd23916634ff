"""The mTLS listener: two routes, for workloads only. No identity comes from anything but TLS.

Everything that can be refused from the connection and the request's form is refused here, in the
order of the release policy, before the JWT is looked at; `exchange` goes on from there.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec

from authserver.audit import Action, Audit, AuditRecord
from authserver.internal.answered_apis import AnsweredApis
from authserver.internal.denial_reasons import DenialReason
from authserver.internal.exchange_request import ACCESS_TOKEN_TYPE, parse
from authserver.internal.revocation_feed import RevocationFeed
from authserver.internal.subject_tokens import SubjectTokenRejected, SubjectTokens
from authserver.internal.svid import InvalidSvid, Svid, SvidReader
from authserver.internal.token_exchange import Exchange, ReleasedToken
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
from authserver.oauth.resources import ATTACH
from authserver.storage.contract import StorageUnavailable
from authserver.storage.keyring import DecryptionFailed
from authserver.tokens.access_tokens import VerifiedClaims
from chassis.clock import Clock
from chassis.event_loop import yield_to_ready
from chassis.http1.errors import BodyBrokenOff, BodyTooLarge, BodyTooSlow, Failure
from chassis.http1.limits import Limits
from chassis.http1.request import Request, media_type
from chassis.http1.response import Response, ResponseHead
from chassis.http1.server import Server
from chassis.logs import Log, LogWriteFailed, request_scope
from chassis.request_ids import HEADER, caller_request_id, new_request_id

_log = Log("internal")

ROUTE: Final = "/internal/token-exchange"
REVOCATIONS: Final = "/internal/revocations"
_FORM: Final = "application/x-www-form-urlencoded"
# Sidecars have shown a certificate; they may be many, and none may sit on half a request.
LIMITS: Final = Limits(body_bytes=16 * 1024, connections=50_000)
_UNMATCHED: Final = "unmatched"
_ACTIONS: Final = {ROUTE: Action.RELEASE, REVOCATIONS: Action.REVOCATION_POLL}
_MAX_CONNECTION_SECONDS: Final = 600.0
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


class Internal:
    """Answers workloads."""

    def __init__(
        self,
        subject_tokens: SubjectTokens,
        exchange: Exchange,
        revocations: RevocationFeed,
        svids: SvidReader,
        workload_policy: WorkloadPolicy,
        apis: AnsweredApis,
        audit: Audit,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._workload_policy, self._apis = workload_policy, apis
        self._subject_tokens, self._exchange = subject_tokens, exchange
        self._revocations, self._svids = revocations, svids
        self._routes: dict[str, Handler] = {ROUTE: self._exchanged, REVOCATIONS: self._polled}
        self._audit, self._metrics = audit, metrics
        self._clock = clock
        for reason in DenialReason:
            # At 0 from the start: an alert on an increase does not see a first sample.
            metrics.denials.labels(reason.value)

    def server(self, limits: Limits = LIMITS) -> Server:
        """The HTTP server of the listener."""
        return Server(
            self.answer, limits=limits, failed=self.failed, on_drain=self._revocations.release
        )

    async def answer(self, request: Request) -> Response:
        """The handler of every request."""
        started = time.perf_counter()
        # A sidecar sends the id of its own caller's request: one id in the logs of both.
        request_id = caller_request_id(request.headers) or new_request_id()
        with request_scope(request_id):
            route = request.target.partition("?")[0]
            if route in self._routes:
                answer = await self._answer(request, route)
            else:
                answer, route = _json(404, {"error": "not_found"}), _UNMATCHED
        self._metrics.request_seconds_of(route).observe(time.perf_counter() - started)
        if self._is_old(_peer(request, self._clock)):
            answer.close = True
        await yield_to_ready()
        return self._finished(answer, route, request_id)

    def failed(self, failure: Failure) -> Response:
        """The answer where there is no other: to bytes that are no request, or while draining."""
        if failure.bug is not None:
            _log.failure("request_failed", failure.bug)
        refusal = _FAILURES.get(failure.status, InvalidRequest)(failure.reason)
        answer = _json(failure.status, refusal.members())
        return self._finished(answer, _UNMATCHED, new_request_id())

    def _finished(self, answer: Response, route: str, request_id: str) -> Response:
        self._metrics.requests_of(route, answer.head.status).inc()
        answer.head = answer.head.plus(HEADER, request_id)
        return answer

    async def _answer(self, request: Request, route: str) -> Response:
        record = AuditRecord(action=_ACTIONS[route])
        try:
            return await self._routes[route](request, record)
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

    async def _exchanged(self, request: Request, record: AuditRecord) -> Response:
        body, refreshed = await self._release(request, record)
        await yield_to_ready()
        # The record stands before the token leaves.
        self._audit.release(record, refreshed=refreshed)
        result = "refreshed" if refreshed else "stored"
        self._metrics.releases_of(record.upstream, result).inc()
        return _json(200, body)

    async def _polled(self, request: Request, record: AuditRecord) -> Response:
        svid = self._admitted(request, record)
        cursor = (await self._fields(request)).get("cursor")
        return _json(200, await self._revocations.poll(svid.workload, cursor))

    def _admitted(self, request: Request, record: AuditRecord) -> Svid:
        """The caller's certificate, which is one that we serve now."""
        svid = self._svid(request)
        record.spiffe_id, record.certificate_serial = svid.spiffe_id, svid.serial
        record.certificate_sha256 = svid.fingerprint
        self._check_admitted(svid, self._clock())
        return svid

    async def _release(self, request: Request, record: AuditRecord) -> tuple[dict[str, Any], bool]:
        """The answer's body, and whether the token was refreshed for it; `record` says how far
        the request got.
        """
        svid = self._admitted(request, record)
        exchange_request = parse(await self._fields(request))
        try:
            claims = self._subject_tokens.verify(svid.workload, exchange_request.unverified_jwt)
        except SubjectTokenRejected as refused:
            if refused.claims is not None:
                self._note(record, refused.claims)
            raise
        self._note(record, claims)
        self._subject_tokens.check_certificate_age(claims, svid.not_before)
        target = await self._exchange.authorize(svid.workload, claims, exchange_request)
        record.upstream = target.upstream
        if target.exchanged is not None:
            wanted = target.exchanged.target
            record.audience = " ".join((*wanted.audiences, *wanted.resources))
            record.scope = " ".join(wanted.scopes)
        released = await self._exchange.release(target, claims, exchange_request)
        return self._body(released, claims, svid), released.refreshed

    def _note(self, record: AuditRecord, claims: VerifiedClaims) -> None:
        record.jti = self._audit.pseudonym("jti", claims.jti)
        record.user = self._audit.pseudonym("user", claims.subject)
        record.session = self._audit.pseudonym("session", claims.tsid)
        record.client, record.resource = claims.client_id, claims.audience

    async def _fields(self, request: Request) -> dict[str, str]:
        if request.method != "POST" or request.head.minor_version < 1:
            raise InvalidRequest(DenialReason.NOT_AN_HTTP_1_1_POST)
        if "?" in request.target:
            raise InvalidRequest(DenialReason.QUERY_STRING)
        if media_type(request.headers) != _FORM or "content-encoding" in request.headers:
            raise InvalidRequest(DenialReason.MEDIA_TYPE)
        try:
            return form_fields(await request.read())
        except BodyTooLarge:
            raise InvalidRequest(DenialReason.BODY_TOO_LARGE) from None
        except BodyTooSlow:
            raise InvalidRequest(DenialReason.SLOW_BODY) from None
        except BodyBrokenOff:
            raise InvalidRequest(DenialReason.BODY_CUT_OFF) from None
        except Malformed:
            raise InvalidRequest(DenialReason.MALFORMED_FORM) from None

    def _svid(self, request: Request) -> Svid:
        """The peer's certificate, read once for each connection."""
        peer = _peer(request, self._clock)
        if peer.svid is not None:
            return peer.svid
        der = request.connection.peer_certificate()
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
        if self._workload_policy.denies(svid):
            raise ForbiddenClient(DenialReason.CERTIFICATE_DENIED)
        if not self._workload_policy.allowed.admit(svid.workload):
            raise ForbiddenClient(DenialReason.WORKLOAD_NOT_ALLOWED)

    def _refused(self, refusal: ProtocolError, record: AuditRecord) -> Response:
        try:
            reason = DenialReason(refusal.reason)
        except ValueError:
            # A label outside the closed list would be a fault of ours, and no caller's to choose.
            _log.error("unlisted_denial_reason")
            reason = DenialReason.UNEXPECTED
        self._audit.denial(record, reason=reason.value, error=refusal.error)
        self._metrics.denials.labels(reason.value).inc()
        answer = _json(refusal.status_code, refusal.members(), refusal.headers)
        answer.close = isinstance(refusal, InvalidClient)
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
            "connection": self._audit.handle("connection", owner, claims.subject, released.root),
            "sub": claims.subject,
            "client_id": claims.client_id,
            "release": released.release,
        }
        if ATTACH in released.release:
            apis, without_base_url = self._apis.of(upstream, released.origins)
            body["apis"] = apis
            if without_base_url is not None:
                body["apis_without_base_url"] = without_base_url
        if released.expires_in is not None:
            body["expires_in"] = released.expires_in
        if released.scope is not None:
            body["scope"] = released.scope
        return body

    def _is_old(self, peer: _Peer) -> bool:
        """Whether the connection should end, so that a new handshake looks at the peer again.

        A connection older than the time that the clock was set back to is as old as can be.
        """
        return not 0 <= self._clock() - peer.since <= _MAX_CONNECTION_SECONDS


def _peer(request: Request, clock: Clock) -> _Peer:
    """What is known of the peer, kept at the connection."""
    connection = request.connection
    if not isinstance(connection.peer, _Peer):
        connection.peer = _Peer(clock())
    return connection.peer


Handler = Callable[[Request, AuditRecord], Awaitable[Response]]

_FAILURES: Final = {500: ProtocolError, 503: TemporarilyUnavailable}


def _json(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    head = _head_of(status)
    for name, value in (headers or {}).items():
        head = head.plus(name, value)
    return Response(head, msgspec.json.encode(body))


@lru_cache(maxsize=32)
def _head_of(status: int) -> ResponseHead:
    return ResponseHead(status, _HEADERS.items())
