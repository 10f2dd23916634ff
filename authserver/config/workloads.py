"""Which workloads the internal listener serves, and which certificates it refuses."""

from pydantic import field_validator

from chassis.config_types import Model
from chassis.spiffe_id import Workload


class AllowedWorkloads(Model):
    """Whom the internal listener serves at all. `"*"` must be written out; empty means nobody."""

    namespaces: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def admit(self, workload: Workload) -> bool:
        return _listed(workload.namespace, self.namespaces) and _listed(workload.name, self.names)


def _listed(label: str, allowed: tuple[str, ...]) -> bool:
    return "*" in allowed or label in allowed


class DeniedCertificates(Model):
    """Certificates turned away although their CA is trusted."""

    serials: tuple[str, ...] = ()
    spiffe_ids: tuple[str, ...] = ()

    @field_validator("serials")
    @classmethod
    def _one_spelling(cls, serials: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(serial.replace(":", "").lstrip("0").upper() for serial in serials)
