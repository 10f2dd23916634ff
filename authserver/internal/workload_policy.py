"""Whom the internal listener serves at all, as the configuration says now."""

from collections.abc import Set as AbstractSet

from authserver.config.workloads import AllowedWorkloads, DeniedCertificates
from authserver.internal.svid import Svid


class WorkloadPolicy:
    """`of_deleted` are the serials of leaves whose object is gone, as the map's files say."""

    def __init__(
        self,
        allowed: AllowedWorkloads,
        denied: DeniedCertificates,
        of_deleted: AbstractSet[str] = frozenset(),
    ) -> None:
        self.replace(allowed, denied, of_deleted)

    def replace(
        self,
        allowed: AllowedWorkloads,
        denied: DeniedCertificates,
        of_deleted: AbstractSet[str] = frozenset(),
    ) -> None:
        self.allowed, self._denied_ids = allowed, frozenset(denied.spiffe_ids)
        self._denied_serials = frozenset(denied.serials) | of_deleted

    def denies(self, svid: Svid) -> bool:
        """Whether this very certificate, or its workload, is turned away."""
        return svid.serial in self._denied_serials or svid.spiffe_id in self._denied_ids
