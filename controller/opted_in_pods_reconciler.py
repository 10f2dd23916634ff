"""Looks through the pods of a namespace for some that opted in and have no sidecar."""

from datetime import datetime, timedelta
from typing import Final

from controller.api.kinds import NAMESPACE, POD_METADATA
from controller.api.objects import Key
from controller.reconcile import opted_in
from controller.world import SERVER_AUTH, Work, World

_RUNNING: Final = "status.phase!=Succeeded,status.phase!=Failed"
# Servers and pods that are applied together with the installation are there by then.
_NEW: Final = timedelta(minutes=10)
_LOOK_SOON: Final = timedelta(minutes=1)


class OptedInPodsReconciler:
    """The key's namespace is looked through. Nobody follows these pods: there may be many."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def run(self, key: Key) -> datetime | None:
        """When to look again; None where the namespace has no servers."""
        world, namespace = self._world, key.namespace
        servers = world.index.servers_in(namespace)
        if not servers:
            return None
        pods, _ = await world.cluster.list(POD_METADATA, namespace, fieldSelector=_RUNNING)
        stored = world.stores[NAMESPACE].get(Key("", namespace))
        lacking = opted_in.without_sidecar(pods, stored)
        for server in servers:
            names = tuple(lacking.get(server.name, ()))
            if names != world.without_sidecar.get(server, ()):
                world.without_sidecar[server] = names
                world.enqueue(Work(SERVER_AUTH, server), None)
        now = world.clock()
        is_new = any(now < world.index.servers[one].created + _NEW for one in servers)
        resync = timedelta(minutes=world.settings.resync_minutes)
        return now + (_LOOK_SOON if is_new else resync)
