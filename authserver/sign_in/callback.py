"""The upstream's answer: redeem its code, keep what it gave, and go on."""

from collections.abc import Mapping
from dataclasses import replace

from authserver.handles import hash_of
from authserver.oauth.errors import (
    AccessDenied,
    ProtocolError,
    Redirected,
    ShownToUser,
    TemporarilyUnavailable,
)
from authserver.sign_in.consent import NOT_YOUR_SIGN_IN
from authserver.sign_in.next_step import Onward, Sent
from authserver.sign_in.upstream_login import Legs
from authserver.storage.pending_sign_ins import Transactions
from authserver.storage.records import Grant, Stage, Transaction
from authserver.upstream.contract import Unavailable, UpstreamFailure
from chassis.clock import Clock
from chassis.logs import Log

_log = Log("callback")


class Callback:
    """GET /oauth/callback/{upstream}."""

    def __init__(
        self, legs: Legs, transactions: Transactions, onward: Onward, clock: Clock
    ) -> None:
        self._legs, self._transactions = legs, transactions
        self._onward, self._clock = onward, clock

    async def finish(self, upstream: str, fields: Mapping[str, str], browser: str | None) -> Sent:
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
    ) -> Sent:
        try:
            grant = await self._redeem(transaction, fields)
            transaction = replace(transaction, grants=(*transaction.grants, grant))
        except (UpstreamFailure, AccessDenied) as failure:
            # A linked upstream that fails does not cost what the others gave; without the
            # first one there is no user.
            if not transaction.names_its_user:
                raise _refusal(failure) from None
            _log.warning("linked_upstream_failed", upstream=transaction.upstream)
        return await self._onward.go(transaction, browser)

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


def _refusal(failure: UpstreamFailure | AccessDenied) -> ProtocolError:
    if isinstance(failure, AccessDenied):
        return failure
    if isinstance(failure, Unavailable):
        return TemporarilyUnavailable(f"upstream_{failure}")
    return AccessDenied(f"upstream_{failure}")
