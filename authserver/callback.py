"""The upstream's answer: redeem its code, store what it gave, send the user back with our code."""

from collections.abc import Mapping
from dataclasses import replace

from authserver.consent import NOT_YOUR_SIGN_IN
from authserver.errors import (
    AccessDenied,
    InvalidTarget,
    ProtocolError,
    Redirected,
    ShownToUser,
    TemporarilyUnavailable,
)
from authserver.handles import NewHandle, hash_of
from authserver.legs import Legs
from authserver.redirects import answer_url
from authserver.resources import ResourceMap
from authserver.storage.records import Code, Grant, Session, Stage, Transaction
from authserver.storage.sign_ins import SignIns
from authserver.storage.transactions import Transactions
from authserver.upstream.contract import Unavailable, UpstreamFailure
from chassis.clock import Clock
from chassis.logs import Log

_log = Log("callback")


class Callback:
    """GET /oauth/callback/{upstream}."""

    def __init__(
        self,
        issuer: str,
        legs: Legs,
        resources: ResourceMap,
        transactions: Transactions,
        sign_ins: SignIns,
        clock: Clock,
        new_handle: NewHandle,
        *,
        code_seconds: int,
    ) -> None:
        self._issuer, self._legs, self._resources = issuer, legs, resources
        self._transactions, self._sign_ins = transactions, sign_ins
        self._clock, self._new_handle, self._code_seconds = clock, new_handle, code_seconds

    async def finish(self, upstream: str, fields: Mapping[str, str], browser: str | None) -> str:
        """Where to send the user next. Raises ShownToUser or Redirected.

        The transaction is consumed only by the browser that started it, at the upstream it was
        sent to: nobody can complete, or use up, a sign-in of somebody else.
        """
        state = fields.get("state")
        if state is None or browser is None:
            raise ShownToUser("callback_without_state_or_cookie", NOT_YOUR_SIGN_IN)
        transaction = await self._transactions.take(
            hash_of(state), Stage.UPSTREAM, hash_of(browser), upstream=upstream, now=self._clock()
        )
        if transaction is None:
            raise ShownToUser("no_such_transaction", NOT_YOUR_SIGN_IN)
        try:
            return await self._go_on(transaction, fields, browser)
        except ProtocolError as refusal:
            request = transaction.request
            raise Redirected(refusal, request.redirect_uri, request.state) from None

    async def _go_on(
        self, transaction: Transaction, fields: Mapping[str, str], browser: str
    ) -> str:
        try:
            grant = await self._redeem(transaction, fields)
            transaction = replace(transaction, grants=(*transaction.grants, grant))
        except (UpstreamFailure, AccessDenied) as failure:
            # A linked upstream that fails does not cost what the others gave; without the
            # first one there is no user.
            if not transaction.grants:
                raise _refusal(failure) from None
            _log.warning("linked_upstream_failed", upstream=transaction.upstream)
        while transaction.remaining:
            try:
                return await self._legs.begin(transaction, browser)
            except UpstreamFailure:
                _log.warning("linked_upstream_failed", upstream=transaction.remaining[0])
                transaction = replace(transaction, remaining=transaction.remaining[1:])
        return await self._complete(transaction)

    async def _redeem(self, transaction: Transaction, fields: Mapping[str, str]) -> Grant:
        if "code" not in fields or "error" in fields:
            raise AccessDenied("upstream_denied")
        upstream = self._legs.upstream(transaction.upstream)
        return await upstream.redeem(
            fields["code"],
            redirect_uri=self._legs.callback_uri(transaction.upstream),
            code_verifier=transaction.code_verifier,
            nonce=transaction.nonce,
            issuer=fields.get("iss"),
        )

    async def _complete(self, transaction: Transaction) -> str:
        request, now, code = transaction.request, int(self._clock()), self._new_handle()
        resource = self._resources.get(request.resource)
        if resource is None:
            raise InvalidTarget("resource_gone")
        session = Session(
            tsid=self._new_handle(),
            user_id=self._new_handle(),
            client_id=request.client_id,
            resource=resource.url,
            owner=resource.owner,
            scope=request.scope,
            created_at=now,
            expires_at=now + self._code_seconds,  # until the code is redeemed
        )
        await self._sign_ins.complete(
            transaction.grants,
            session,
            hash_of(code),
            Code(
                session.tsid,
                request.client_id,
                request.redirect_uri,
                request.code_challenge,
                resource.url,
            ),
            code_expires_at=now + self._code_seconds,
        )
        return answer_url(request.redirect_uri, issuer=self._issuer, state=request.state, code=code)


def _refusal(failure: UpstreamFailure | AccessDenied) -> ProtocolError:
    if isinstance(failure, AccessDenied):
        return failure
    if isinstance(failure, Unavailable):
        return TemporarilyUnavailable(f"upstream_{failure}")
    return AccessDenied(f"upstream_{failure}")
