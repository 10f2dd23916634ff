"""MCPAuthServer: observe, plan, put the plan into the cluster."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from controller.api import conditions
from controller.api.conditions import Condition, Reason
from controller.api.kinds import (
    ADMISSION_POLICY,
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    MCP_AUTH_SERVER,
    POD,
    SECRET,
    VOLUME_CLAIM,
)
from controller.api.objects import Key
from controller.api.v1alpha1 import AuthServer
from controller.reconcile import auth_server, guard
from controller.world import RESOURCE_MAP, Work, World


class AuthServerReconciler:
    """MCPAuthServer: its objects and its status."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def run(self, key: Key) -> datetime | None:
        """When to come back, if nothing happens before."""
        world = self._world
        server = world.index.auth_servers.get(key)
        if server is None or not server.live or server.paused:
            return None
        if key.namespace != world.namespace:
            await world.applier.write_status(
                MCP_AUTH_SERVER, server.raw, _foreign_status(server, world)
            )
            return None
        now = world.clock()
        plan = auth_server.plan(
            server,
            self._observed(server),
            auth_server.Surroundings(
                world.settings.authserver_image,
                world.settings.cluster_domain,
                accepted=len(world.index.accepted(key, now)),
                pods_without_bundle=world.pods_without_bundle,
                old_sidecars=self._old_sidecars(key, now),
            ),
            now,
            world.makers,
        )
        await world.applier.run(plan)
        # The reconciler of the map writes reservations and adoptions, together with the map.
        await world.applier.write_status(
            MCP_AUTH_SERVER, server.raw, plan.status, "reserved", "adopted"
        )
        for event in plan.events:
            if event.reason == "CertificateIssued":
                world.metrics.certificates.labels("BuiltIn", "issued").inc()
            await world.applier.record(server.raw, event)
        world.enqueue(Work(RESOURCE_MAP, key), None)
        return plan.again_at

    def _old_sidecars(self, key: Key, now: datetime) -> Mapping[str, int]:
        """Images whose last day is over, each with the pods that have it."""
        world, settings = self._world, self._world.settings.webhook
        if settings is None or key.name != settings.auth_server:
            return {}
        policy = world.stores[ADMISSION_POLICY].get(Key("", settings.guard_policy))
        running = world.sidecar_images()
        former = guard.former_images(policy, settings.image, now, running)
        return {image: running[image] for image in former}

    def _observed(self, server: AuthServer) -> auth_server.Observed:
        world, key = self._world, Key(server.namespace, server.name)
        return auth_server.Observed(
            world.own(SECRET),
            world.own(CONFIG_MAP),
            world.stores[DEPLOYMENT].get(key),
            world.stores[VOLUME_CLAIM].get(key),
            world.own(JOB),
            auth_server.own_pods(server, world.own(POD).values()),
        )


def _foreign_status(server: AuthServer, world: World) -> dict[str, Any]:
    text = f"only MCPAuthServers in namespace {world.namespace} count"
    accepted = Condition("Accepted", "False", Reason.NOT_PERMITTED, text)
    counted = [conditions.summary([accepted]), accepted]
    before = server.status.get("conditions")
    return {
        "observedGeneration": server.generation,
        "phase": "Failed",
        "conditions": conditions.render(counted, before, server.generation, world.clock()),
    }
