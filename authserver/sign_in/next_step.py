"""The next step of a sign-in that has its consent: one more upstream, or the end of it.

At the end everything is stored in one step, and the user goes back to the client with a code.
"""

from dataclasses import dataclass, replace

from authserver.config.settings import Lifetimes
from authserver.handles import NewHandle, hash_of
from authserver.oauth.errors import InvalidTarget, TemporarilyUnavailable
from authserver.oauth.redirect_uris import answer_url
from authserver.oauth.resources import Resource, ResourceMap
from authserver.sign_in.upstream_login import Legs
from authserver.storage.completed_sign_ins import NewBrowserSession, SignIns
from authserver.storage.consents import Given
from authserver.storage.records import Code, Session, Transaction
from authserver.upstream.contract import UpstreamFailure
from chassis.clock import Clock
from chassis.logs import Log

_log = Log("onward")


@dataclass(frozen=True)
class Sent:
    """Where to send the user; `session` is the handle of the browser session that began."""

    url: str
    session: str | None = None


class Onward:
    def __init__(
        self,
        issuer: str,
        legs: Legs,
        resources: ResourceMap,
        sign_ins: SignIns,
        lifetimes: Lifetimes,
        clock: Clock,
        new_handle: NewHandle,
    ) -> None:
        self._issuer, self._legs, self._resources = issuer, legs, resources
        self._sign_ins, self._lifetimes = sign_ins, lifetimes
        self._clock, self._new_handle = clock, new_handle

    async def go(self, transaction: Transaction, browser: str) -> Sent:
        """Raises TemporarilyUnavailable where the upstream that names the user cannot be asked,
        and InvalidTarget where the resource is no longer that of the owner the user consented to.

        A linked upstream that fails is left out: it does not cost what the others gave.
        """
        self._still_owned(transaction)
        while transaction.remaining:
            try:
                return Sent(await self._legs.begin(transaction, browser))
            except UpstreamFailure as failure:
                if not transaction.names_its_user:
                    raise TemporarilyUnavailable(f"upstream_{failure}") from None
                _log.warning("linked_upstream_failed", upstream=transaction.remaining[0])
                transaction = replace(transaction, remaining=transaction.remaining[1:])
        return await self._complete(transaction)

    async def _complete(self, transaction: Transaction) -> Sent:
        request, now, code = transaction.request, int(self._clock()), self._new_handle()
        resource = self._still_owned(transaction)
        code_expires_at = now + self._lifetimes.authorization_code
        session = Session(
            tsid=self._new_handle(),
            user_id=transaction.user_id or self._new_handle(),
            client_id=request.client_id,
            resource=resource.url,
            owner=resource.owner,
            scope=request.scope,
            created_at=now,
            expires_at=code_expires_at,  # until the code is redeemed
            signed_in_at=transaction.signed_in_at or now,
        )
        began = None if transaction.user_id else self._new_handle()
        await self._sign_ins.complete(
            transaction.grants,
            session,
            hash_of(code),
            _code(transaction, session),
            code_expires_at=code_expires_at,
            user_known=began is None,
            consent=self._given(transaction, now),
            browser=NewBrowserSession(hash_of(began), now + self._lifetimes.browser_session)
            if began
            else None,
        )
        url = answer_url(request.redirect_uri, issuer=self._issuer, state=request.state, code=code)
        return Sent(url, began)

    def _still_owned(self, transaction: Transaction) -> Resource:
        resource = self._resources.get(transaction.request.resource)
        if resource is None:
            raise InvalidTarget("resource_gone")
        if resource.owner != transaction.request.owner:
            raise InvalidTarget("resource_changed_hands")
        return resource

    def _given(self, transaction: Transaction, now: int) -> Given | None:
        if not transaction.question_hash:
            return None
        return Given(
            transaction.question_hash,
            transaction.request.client_id,
            transaction.request.resource,
            now + self._lifetimes.remembered_consent,
        )


def _code(transaction: Transaction, session: Session) -> Code:
    request = transaction.request
    return Code(
        session.tsid,
        request.client_id,
        request.redirect_uri,
        request.code_challenge,
        session.resource,
        request.nonce,
    )
