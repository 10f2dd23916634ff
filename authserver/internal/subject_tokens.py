"""The JWT that a workload brings: that we signed it, and for a resource of this very workload."""

import hmac
from typing import Any

from authserver.internal.denial_reasons import DenialReason, of_bad_token
from authserver.internal.token_limits import TokenLimits
from authserver.oauth.errors import InvalidRequest
from authserver.oauth.parsing import Malformed, short_text
from authserver.oauth.resources import Resource, ResourceMap
from authserver.tokens.access_tokens import MAX_AUDIENCE, AccessTokens, VerifiedClaims
from authserver.tokens.jws import BadToken
from chassis.clock import Clock
from chassis.spiffe_id import Workload


class SubjectTokenRejected(InvalidRequest):
    """The subject token is not acceptable to this caller (RFC 8693 section 2.2.2): one answer.

    `claims` are those of a JWT that we did sign, for the audit alone.
    """

    claims: VerifiedClaims | None = None


class SubjectTokens:
    """The first checks of a release; what they answer a stranger is the same in every case."""

    def __init__(
        self, tokens: AccessTokens, resources: ResourceMap, limits: TokenLimits, clock: Clock
    ) -> None:
        self._tokens, self._resources = tokens, resources
        self._limits, self._clock = limits, clock

    def verify(self, caller: Workload, unverified_jwt: str) -> VerifiedClaims:
        """The claims of a JWT that we signed for a resource of the caller.

        A JWT that was accepted before meets no limit. Any other one is looked at in the order of
        cost: form, `kid`, audience, then, within the bound on verifications, the signature.
        Raises SubjectTokenRejected, or RateLimited for JWTs that fail too often.
        """
        now = self._clock()

        def before_signature(unverified_claims: dict[str, Any]) -> None:
            self.owned(caller, _audience(unverified_claims))
            self._limits.verifications.take(str(caller), now)

        try:
            claims = self._tokens.verify(unverified_jwt, now, before_signature=before_signature)
            self.owned(caller, claims.audience)
        except BadToken as refused:
            reason = of_bad_token(refused)
            if reason is not DenialReason.JWT_EXPIRED:
                self._limits.failures.take(str(caller), now)
            # An expired JWT is rightly signed: an ordinary client that is about to refresh.
            raise SubjectTokenRejected(reason) from None
        except SubjectTokenRejected as refused:
            self._limits.failures.take(str(caller), now)
            refused.claims = self._if_ours(unverified_jwt, now)
            raise
        return claims

    def _if_ours(self, unverified_jwt: str, now: float) -> VerifiedClaims | None:
        """Whose JWT a caller presented that may not have it; the limit on failures bounds this."""
        try:
            return self._tokens.verify(unverified_jwt, now)
        except BadToken:
            return None

    def owned(self, caller: Workload, audience: str) -> Resource:
        """The resource of this name, which is the caller's. Raises SubjectTokenRejected."""
        resource = self._resources.get(audience)
        if resource is None:
            raise SubjectTokenRejected(DenialReason.UNKNOWN_RESOURCE)
        # In constant time, so that an answer's time tells nothing of who the owner is.
        if not hmac.compare_digest(str(resource.owner), str(caller)):
            raise SubjectTokenRejected(DenialReason.CALLER_IS_NOT_THE_OWNER)
        return resource

    def check_certificate_age(self, claims: VerifiedClaims, not_before: float) -> None:
        """Refuse a certificate that began before its owner did: it is a deleted namesake's.

        Raises SubjectTokenRejected.
        """
        resource = self._resources.get(claims.audience)
        since = resource.owned_since if resource is not None else None
        if since is not None and not_before < since:
            raise SubjectTokenRejected(DenialReason.CERTIFICATE_OF_A_NAMESAKE)


def _audience(unverified_claims: dict[str, Any]) -> str:
    try:
        return short_text(unverified_claims, "aud", MAX_AUDIENCE)
    except Malformed:
        raise SubjectTokenRejected(DenialReason.JWT_BAD_CLAIMS) from None
