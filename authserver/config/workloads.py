"""Which workloads the internal listener serves, and which certificates it refuses."""

from typing import Annotated

from pydantic import AfterValidator, AwareDatetime

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


def _one_spelling(serial: str) -> str:
    return serial.replace(":", "").lstrip("0").upper()


Serial = Annotated[str, AfterValidator(_one_spelling)]
"""The serial number of a certificate, in hex, as X.509 tools print it."""


class DeniedLeaf(Model):
    """A leaf whose object is gone; its author takes it off the list after `until`."""

    serial: Serial
    until: AwareDatetime


class DeniedCertificates(Model):
    """Certificates turned away although their CA is trusted."""

    serials: tuple[Serial, ...] = ()
    spiffe_ids: tuple[str, ...] = ()
