"""The webhook's files, the API servers' trust in it, and the bundle in running pods."""

from datetime import datetime, timedelta
from typing import Final

from chassis.logs import Log
from controller.api.kinds import ADMISSION_POLICY, MUTATING_WEBHOOK, POD, SECRET
from controller.api.objects import Key, annotations
from controller.cluster import ApiError
from controller.issuing.authority import InvalidAuthority
from controller.reconcile import webhook
from controller.world import AUTHSERVER_CA, World, authority_of, bundle_of

_log = Log("webhook_reconciler")

# Without this policy a stolen controller could change anything of any pod.
POLICY_ON_OURSELVES: Final = "tokenward-guard-controller"
_AT_ONCE: Final = 50
_LOOK_AGAIN: Final = timedelta(seconds=30)


class WebhookReconciler:
    """There is one webhook; its key is the MCPAuthServer that its sidecars use."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def run(self, key: Key) -> datetime | None:
        world, settings = self._world, self._world.settings.webhook
        server = world.index.counts(key)
        if settings is None or server is None or not server.live or server.paused:
            return None
        now = world.clock()
        bundle = bundle_of(world, server, "servers")
        if not bundle:
            return now + _LOOK_AGAIN  # the change of the Secret comes first, usually
        name = settings.mutating_webhook_configuration
        observed = webhook.Observed(
            server,
            tuple(world.index.accepted(key, now)),
            bundle,
            authority_of(world, server, "servers"),
            world.stores[SECRET].get(Key(world.namespace, settings.serving_secret)),
            world.stores[MUTATING_WEBHOOK].get(Key("", name)),
            world.stores[ADMISSION_POLICY].get(Key("", settings.guard_policy)),
            world.sidecar_images(),
        )
        try:
            plan = webhook.plan(
                settings, observed, world.settings.cluster_domain, now, world.makers
            )
        except InvalidAuthority:
            return now + _LOOK_AGAIN  # said in the MCPAuthServer's status
        await world.applier.run(plan)
        for event in plan.events:
            world.metrics.certificates.labels("BuiltIn", "issued").inc()
            await world.applier.record(server.raw, event)
        left = await self._spread(webhook.pod_annotation(bundle))
        return min(plan.again_at or now + _LOOK_AGAIN, now + _LOOK_AGAIN) if left else plan.again_at

    async def _spread(self, bundle: str) -> int:
        """Put the bundle into injected pods, some at a time; how many do not have it."""
        world = self._world
        stale = [
            key
            for key, pod in world.stores[POD].items()
            if annotations(pod).get(AUTHSERVER_CA, bundle) != bundle
        ]
        world.pods_without_bundle = len(stale)
        world.metrics.pods_without_bundle.set(len(stale))
        if not stale or await world.cluster.get(ADMISSION_POLICY, _POLICY) is None:
            return len(stale)
        for key in stale[:_AT_ONCE]:
            change = {"metadata": {"annotations": {AUTHSERVER_CA: bundle}}}
            world.check()
            try:
                await world.cluster.patch(POD, key, change)
            except ApiError as error:
                if not error.not_found:
                    _log.warning("bundle_not_spread", pod=str(key), status=error.status)
        return len(stale)


_POLICY: Final = Key("", POLICY_ON_OURSELVES)
