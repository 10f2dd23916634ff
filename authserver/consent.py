"""The answer to our consent page. Before a yes, nothing of a request ever reaches an upstream."""

from collections.abc import Mapping

from authserver.errors import (
    AccessDenied,
    Redirected,
    ShownToUser,
    TemporarilyUnavailable,
)
from authserver.handles import hash_of
from authserver.legs import Legs
from authserver.storage.records import Stage
from authserver.storage.transactions import Transactions
from authserver.upstream.contract import UpstreamFailure
from chassis.clock import Clock

ALLOW, DENY = "allow", "deny"

NOT_YOUR_SIGN_IN = (
    "This sign-in was started in another browser, was already answered, or took too long. "
    "Go back to your application and connect again."
)


class Consent:
    """POST /oauth/consent."""

    def __init__(self, transactions: Transactions, legs: Legs, clock: Clock) -> None:
        self._transactions, self._legs, self._clock = transactions, legs, clock

    async def answer(
        self, fields: Mapping[str, str], browser: str | None, fetch_site: str | None
    ) -> str:
        """Where to send the user after a yes. Raises Redirected after a no, else ShownToUser.

        The form's handle belongs to one transaction and the cookie to one browser; together they
        are the defence against a forged answer. `Sec-Fetch-Site`, where a browser sends it, is
        the second look: a page under `Referrer-Policy: no-referrer` has no usable Origin.
        """
        decision, handle = fields.get("decision"), fields.get("transaction")
        if fetch_site not in (None, "same-origin"):
            raise ShownToUser("consent_from_another_site", NOT_YOUR_SIGN_IN, status=403)
        if decision not in (ALLOW, DENY) or handle is None or browser is None:
            raise ShownToUser("consent_incomplete", NOT_YOUR_SIGN_IN)
        transaction = await self._transactions.take(
            hash_of(handle), Stage.CONSENT, hash_of(browser), upstream="", now=self._clock()
        )
        if transaction is None:
            raise ShownToUser("no_such_transaction", NOT_YOUR_SIGN_IN)
        request = transaction.request
        if decision == DENY:
            raise Redirected(AccessDenied("user_denied"), request.redirect_uri, request.state)
        try:
            return await self._legs.begin(transaction, browser)
        except UpstreamFailure as failure:
            refusal = TemporarilyUnavailable(f"upstream_{failure}")
            raise Redirected(refusal, request.redirect_uri, request.state) from None
