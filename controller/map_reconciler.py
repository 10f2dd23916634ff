"""The resource map of an MCPAuthServer: written, announced, and seen in force."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Final

from controller.api import conditions
from controller.api.auth_server import Adoption, AuthServer
from controller.api.conditions import Condition, Reason
from controller.api.kinds import MCP_AUTH_SERVER, POD
from controller.api.objects import Key, Object, format_time, metadata, path
from controller.api.server_auth import ServerAuth
from controller.cluster import ApiError
from controller.reconcile import auth_server, resource_map
from controller.reconcile.authserver_objects import Objects
from controller.reconcile.keys import EncryptionKeys, KeyPlan, SigningKeys
from controller.world import SERVER_AUTH, Work, World

MAP_ANNOTATION: Final = "tokenward.dev/resource-map"
_TOUCH_EVERY: Final = timedelta(seconds=5)
_LOOK_AGAIN: Final = timedelta(seconds=2)


class MapReconciler:
    """The resource map of an MCPAuthServer: written, announced, and seen in force."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._touched: dict[Key, tuple[str, datetime]] = {}

    async def run(self, key: Key) -> datetime | None:
        world = self._world
        server = world.index.counts(key)
        if server is None or not server.live or server.paused:
            world.maps.pop(key, None)
            world.shown.pop(key, None)
            return None
        now = world.clock()
        accepted = world.index.accepted(key, now)
        adopted = resource_map.adoptions(server, accepted)
        await self._record(server, adopted, now)
        denied = world.index.denied(key.name, now)
        built = resource_map.build(accepted, adopted, denied)
        objects = _objects(server, world)
        for number, text in enumerate(built.shards):
            await world.applier.apply(objects.shard(number, text))
        world.maps[key] = built
        pods = _running(auth_server.own_pods(server, world.own(POD).values()))
        due = [ends for leaves in denied.values() for ends in leaves.values()]
        if (again := await self._touch(key, built, pods, now)) is not None:
            due.append(again)
        if not await self._look(key, built, pods):
            due.append(now + _LOOK_AGAIN)
        return min(due, default=None)

    async def _record(self, server: AuthServer, adopted: list[Adoption], now: datetime) -> None:
        """Before the map forgets an owner or lets one be adopted, the status has it."""
        wanted = self._world.index.reservations(server, now)
        if wanted == list(server.reserved) and adopted == list(server.adopted):
            return
        listed = [
            {"resource": one.resource, "namespace": one.namespace, "until": format_time(one.until)}
            for one in wanted
        ]
        self._world.check()
        objects = [asdict(one) for one in adopted]
        change = {"status": {"reserved": listed or None, "adopted": objects or None}}
        await self._world.cluster.patch(MCP_AUTH_SERVER, server.key, change, "status")

    async def _touch(
        self, key: Key, built: resource_map.Map, pods: list[Object], now: datetime
    ) -> datetime | None:
        """A changed pod makes its kubelet look at its volumes at once, not within a minute."""
        mark = hashlib.sha256("".join(built.hashes).encode()).hexdigest()[:16]
        stale = [one for one in pods if _mark(one) != mark]
        if not stale:
            return None
        former, at = self._touched.get(key, ("", now - _TOUCH_EVERY))
        if former != mark and now < at + _TOUCH_EVERY:
            return at + _TOUCH_EVERY
        self._touched[key] = (mark, now)
        for pod in stale:
            change = {"metadata": {"annotations": {MAP_ANNOTATION: mark}}}
            name = Key(key.namespace, str(metadata(pod).get("name")))
            self._world.check()
            try:
                await self._world.cluster.patch(POD, name, change)
            except ApiError as error:
                if not error.not_found:
                    raise
        return None

    async def _look(self, key: Key, built: resource_map.Map, pods: list[Object]) -> bool:
        """Ask every pod what it has in force; whether it is this map, everywhere."""
        world = self._world
        if pods and _all_show(world.shown.get(key), len(pods), built):
            answers = world.shown[key]
        else:
            answers = [await world.probe.ask(pod) or {} for pod in pods]
        changed = answers != world.shown.get(key)
        world.shown[key] = answers
        if changed:
            for server in world.index.servers_of(key):
                if not _is_programmed(server):
                    world.enqueue(Work(SERVER_AUTH, server.key), None)
        return not pods or _all_show(answers, len(pods), built)


def _all_show(answers: list[Mapping[str, str]] | None, pods: int, built: resource_map.Map) -> bool:
    return (
        answers is not None
        and len(answers) == pods
        and all(
            one.get(resource_map.file_name(number)) == digest
            for one in answers
            for number, digest in enumerate(built.hashes)
        )
    )


def _is_programmed(server: ServerAuth) -> bool:
    programmed = conditions.find(server.status, "Programmed") or {}
    return (
        programmed.get("status") == "True"
        and programmed.get("observedGeneration") == server.generation
    )


def _mark(pod: Object) -> str | None:
    return (metadata(pod).get("annotations") or {}).get(MAP_ANNOTATION)


def _running(pods: tuple[Object, ...]) -> list[Object]:
    """Pods of the Deployment that have an address and do not end."""
    return [
        one
        for one in pods
        if path(one, "status", "podIP")
        and path(one, "status", "phase") == "Running"
        and not metadata(one).get("deletionTimestamp")
        and (metadata(one).get("labels") or {}).get("app.kubernetes.io/name")
        == "tokenward-authserver"
    ]


def _objects(server: AuthServer, world: World) -> Objects:
    """For objects that need neither keys nor a configuration."""
    ready = Condition("KeysReady", "True", Reason.KEYS_READY, "")
    nothing = KeyPlan(EncryptionKeys(""), SigningKeys(""), ready)
    return Objects(server, world.settings.authserver_image, {}, nothing, None)
