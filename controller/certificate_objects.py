"""cert-manager's Certificates: seen and applied, where the cluster has them and lets us."""

from dataclasses import replace

from controller.api.kinds import CERTIFICATE
from controller.api.objects import Key, Object
from controller.cluster import ApiError
from controller.reconcile.cert_manager import Given, Missing
from controller.world import World


class CertificateObjects:
    """In any namespace; each is followed from the first look on."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def given(self, key: Key) -> Given:
        """The Certificate of this name, without its Secret."""
        present = self._world.tenant_objects.follow(CERTIFICATE, key.namespace)
        if present is not None:
            return Given(present.get(key))
        try:
            return Given(await self._world.cluster.get(CERTIFICATE, key))
        except ApiError as error:
            if error.forbidden:
                return Given(missing=Missing.RIGHTS)
            raise

    async def put(self, wanted: Object, given: Given) -> Given:
        """Apply the Certificate; says where that cannot be. Raises ApiError for all else."""
        if given.missing is not None:
            return given
        try:
            await self._world.applier.apply(wanted, given.certificate)
        except ApiError as error:
            if error.forbidden:
                return replace(given, missing=Missing.RIGHTS)
            if error.not_found:
                return replace(given, missing=Missing.CERT_MANAGER)
            raise
        return given
