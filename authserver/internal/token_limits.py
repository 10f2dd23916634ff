"""How often a workload may have JWTs looked at and tokens released, in this process."""

from typing import Self

from authserver.config.settings import Limits
from authserver.internal.denial_reasons import DenialReason
from authserver.rate_limit import RateLimit
from authserver.values import Value


class TokenLimits(Value, frozen=True):
    """Each limit counts one thing, so that none of them lets one caller shut out another.

    `verifications` counts signatures of JWTs that were not accepted before, `failures` JWTs that
    were refused, `releases` accepted JWTs; all three by workload.
    """

    verifications: RateLimit
    failures: RateLimit
    releases: RateLimit

    @classmethod
    def of(cls, limits: Limits) -> Self:
        verifications = limits.verifications_per_workload_per_second
        failures = limits.failed_tokens_per_workload_per_minute
        releases = limits.releases_per_workload_per_second
        return cls(
            RateLimit(DenialReason.VERIFICATIONS, verifications, 1),
            RateLimit(DenialReason.FAILED_TOKENS, failures, 60),
            RateLimit(DenialReason.RELEASES, releases, 1, burst=2 * releases),
        )
