"""NetworkPolicies in tenants' namespaces: kept where the operator lets us."""

from collections.abc import Iterator

from controller.api import conditions
from controller.api.conditions import Condition
from controller.api.kinds import NETWORK_POLICY, POD
from controller.api.objects import Key, Object
from controller.api.server_auth import OpenPorts, ServerAuth
from controller.cluster import ApiError
from controller.reconcile import network_policy
from controller.reconcile.certificates import is_ours
from controller.reconcile.plan import Plan
from controller.reconcile.server_credential import Unprepared, credential_key
from controller.world import World


class NetworkPolicies:
    """One for each server that asks for it, in any namespace."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def put(self, server: ServerAuth, accepted: Condition) -> Condition | None:
        """Make, change or remove the policy; its condition, None where none is wanted.

        Raises ApiError, apart from the lack of rights, which is a condition.
        """
        ports = server.network_policy
        if ports is None:
            await self._remove(server)
            return None
        present = await self._make(server, ports) if accepted.holds else None
        return network_policy.judge(server, ports, present, self._pods(server))

    async def _make(self, server: ServerAuth, ports: OpenPorts) -> Object | Unprepared:
        world, key = self._world, credential_key(server)
        wanted = network_policy.wanted(server, ports)
        followed = world.tenant_objects.follow(NETWORK_POLICY, key.namespace)
        try:
            seen = followed.get(key) if followed is not None else None
            # What is followed has our label: another one's is seen by reading it alone.
            present = seen or await world.cluster.get(NETWORK_POLICY, key)
            if present is None:
                await world.applier.create(wanted)
            elif is_ours(present):
                await world.applier.apply(wanted, present)
            else:
                return present
        except ApiError as error:
            if error.forbidden:
                return Unprepared.NAMESPACE
            raise
        return wanted

    async def _remove(self, server: ServerAuth) -> None:
        """The status says whether there was one: nobody follows policies that nobody wants."""
        if conditions.find(server.status, network_policy.TYPE) is None:
            return
        try:
            present = await self._world.cluster.get(NETWORK_POLICY, credential_key(server))
            if present is not None and is_ours(present):
                await self._world.applier.run(Plan(delete=(present,)))
        except ApiError as error:
            # Without the right it was never ours, or the operator took it back.
            if not error.forbidden:
                raise

    def _pods(self, server: ServerAuth) -> Iterator[Object]:
        stored = self._world.stores[POD]
        keys: set[Key] = self._world.pods_of.get(server.key, set())
        return (stored[one] for one in keys if one in stored)
