"""MCPAuthServer: observe, plan, put the plan into the cluster."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from controller.api import conditions
from controller.api.auth_server import AuthServer
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
from controller.api.objects import Key, key_of
from controller.certificate_objects import CertificateObjects
from controller.reconcile import auth_server, guard
from controller.reconcile.plan import Plan
from controller.reconcile.surroundings import Observed, ServingCertificate, Surroundings
from controller.world import RESOURCE_MAP, Work, World


class AuthServerReconciler:
    """MCPAuthServer: its objects and its status."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._certificates = CertificateObjects(world)

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
        plan = await self._put(server, now)
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

    async def _put(self, server: AuthServer, now: datetime) -> Plan:
        """Put the plan into the cluster, and say which it was."""
        world, observed = self._world, self._observed(server)
        surroundings = self._surroundings(server.key, now)
        plan = auth_server.plan(server, observed, surroundings, now, world.makers)
        if plan.certificates:
            given = {}
            for wanted in plan.certificates:
                present = await self._certificates.given(key_of(wanted))
                given[key_of(wanted).name] = await self._certificates.put(wanted, present)
            observed = replace(observed, certificates=given)
            plan = auth_server.plan(server, observed, surroundings, now, world.makers)
        await world.applier.run(plan)
        return plan

    def _surroundings(self, key: Key, now: datetime) -> Surroundings:
        world, webhook = self._world, self._world.settings.webhook
        serving = None
        if webhook is not None and key.name == webhook.auth_server:
            serving = ServingCertificate(webhook.serving_secret, webhook.service)
        return Surroundings(
            world.settings.authserver_image,
            world.settings.cluster_domain,
            accepted=len(world.index.accepted(key, now)),
            pods_without_bundle=world.pods_without_bundle,
            old_sidecars=self._old_sidecars(key, now),
            webhook=serving,
        )

    def _old_sidecars(self, key: Key, now: datetime) -> Mapping[str, int]:
        """Images whose last day is over, each with the pods that have it."""
        world, settings = self._world, self._world.settings.webhook
        if settings is None or key.name != settings.auth_server:
            return {}
        policy = world.stores[ADMISSION_POLICY].get(Key("", settings.guard_policy))
        running = world.sidecar_images()
        former = guard.former_images(policy, settings.image, now, running)
        return {image: running[image] for image in former}

    def _observed(self, server: AuthServer) -> Observed:
        world, key = self._world, Key(server.namespace, server.name)
        return Observed(
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
