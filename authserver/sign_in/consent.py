"""The answer to our consent page. Before a yes, nothing of a request ever reaches an upstream."""

from collections.abc import Mapping
from dataclasses import replace

from authserver.handles import hash_of
from authserver.oauth.errors import AccessDenied, ProtocolError, Redirected, ShownToUser
from authserver.oauth.resources import ResourceMap
from authserver.sign_in.browser_session import Visitors
from authserver.sign_in.next_step import Onward, Sent
from authserver.storage.pending_sign_ins import Transactions
from authserver.storage.records import Stage, Transaction
from chassis.clock import Clock

ALLOW, ALLOW_OTHER, DENY = "allow", "allow_other", "deny"

NOT_YOUR_SIGN_IN = (
    "This sign-in was started in another browser, was already answered, or took too long. "
    "Go back to your application and connect again."
)


class Consent:
    """POST /oauth/consent."""

    def __init__(
        self,
        transactions: Transactions,
        visitors: Visitors,
        resources: ResourceMap,
        onward: Onward,
        clock: Clock,
    ) -> None:
        self._transactions, self._visitors = transactions, visitors
        self._resources, self._onward, self._clock = resources, onward, clock

    async def answer(
        self,
        fields: Mapping[str, str],
        browser: str | None,
        session: str | None,
        fetch_site: str | None,
    ) -> Sent:
        """Where to send the user after a yes. Raises Redirected after a no, else ShownToUser.

        The form's handle belongs to one transaction and the cookie to one browser; together they
        are the defence against a forged answer. `Sec-Fetch-Site`, where a browser sends it, is
        the second look: a page under `Referrer-Policy: no-referrer` has no usable Origin.
        """
        decision, handle = fields.get("decision"), fields.get("transaction")
        if fetch_site not in (None, "same-origin"):
            raise ShownToUser("consent_from_another_site", NOT_YOUR_SIGN_IN, status=403)
        if decision not in (ALLOW, ALLOW_OTHER, DENY) or handle is None or browser is None:
            raise ShownToUser("consent_incomplete", NOT_YOUR_SIGN_IN)
        transaction = await self._transactions.take(
            hash_of(handle), Stage.CONSENT, hash_of(browser), upstream="", now=self._clock()
        )
        if transaction is None:
            raise ShownToUser("no_such_transaction", NOT_YOUR_SIGN_IN)
        request = transaction.request
        if decision == DENY:
            raise Redirected(AccessDenied("user_denied"), request.redirect_uri, request.state)
        if decision == ALLOW_OTHER:
            transaction = replace(self._signed_out(transaction), asks_for_account=True)
        elif transaction.user_id and not await self._still_there(transaction, session):
            transaction = self._signed_out(transaction)
        try:
            return await self._onward.go(transaction, browser)
        except ProtocolError as refusal:
            raise Redirected(refusal, request.redirect_uri, request.state) from None

    async def _still_there(self, transaction: Transaction, session: str | None) -> bool:
        """Whether who answers is who the page was made for."""
        visitor = await self._visitors.known(session)
        return visitor is not None and visitor.user_id == transaction.user_id

    def _signed_out(self, transaction: Transaction) -> Transaction:
        resource = self._resources.get(transaction.request.resource)
        return replace(
            transaction,
            remaining=resource.upstreams if resource else (),
            user_id="",
            signed_in_at=0,
        )
