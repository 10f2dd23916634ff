"""Whom the internal listener serves at all, as the configuration says now."""

from authserver.config.workloads import AllowedWorkloads, DeniedCertificates


class WorkloadPolicy:
    def __init__(self, allowed: AllowedWorkloads, denied: DeniedCertificates) -> None:
        self.replace(allowed, denied)

    def replace(self, allowed: AllowedWorkloads, denied: DeniedCertificates) -> None:
        self.allowed, self.denied = allowed, denied
