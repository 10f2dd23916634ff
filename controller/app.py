"""Puts a controller together: informers feed the index and the queue, workers empty the queue."""

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Final

from chassis.logs import Log
from controller.api.kinds import Kind
from controller.api.objects import Key, version
from controller.applier import Applier
from controller.auth_server_reconciler import AuthServerReconciler
from controller.backoff import Random
from controller.cluster import ApiError, Cluster
from controller.issuing.authority import new_key
from controller.leader_election import LeaderElection, LeaderLost
from controller.map_probe import MapProbe
from controller.map_reconciler import MapReconciler
from controller.metrics import Metrics
from controller.opted_in_pods_reconciler import OptedInPodsReconciler
from controller.pod_certificate_reconciler import PodCertificateReconciler
from controller.reconcile.index import Index
from controller.reconcile.plan import Makers
from controller.reconcile.server_credential import SUFFIX
from controller.server_reconciler import ServerReconciler
from controller.settings import Settings
from controller.subscriptions import Subscriptions
from controller.tenant_objects import TenantObjects
from controller.webhook_reconciler import WebhookReconciler
from controller.work_queue import WorkQueue
from controller.world import (
    AUTH_SERVER,
    OPTED_IN_PODS,
    POD_CERTIFICATE,
    RESOURCE_MAP,
    SERVER_AUTH,
    WEBHOOK,
    Work,
    World,
)

_log = Log("controller")

_IDLE_SECONDS: Final = 60.0
# These look at everything, so a burst of changes is one pass.
_FED_BY_MANY: Final = (AUTH_SERVER, RESOURCE_MAP, WEBHOOK, OPTED_IN_PODS)
_BURST_SECONDS: Final = 0.3


class Controller:
    """Everything but the sockets. `now` is UTC, `monotonic` counts seconds.

    `pod_certificates` is the kind of requests to answer, None where the cluster has none.
    """

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        metrics: Metrics,
        probe: MapProbe,
        *,
        identity: str,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        random: Random,
        pod_certificates: Kind | None = None,
    ) -> None:
        self._settings, self._cluster = settings, cluster
        self._monotonic, self._random, self._now = monotonic, random, now
        self.metrics = metrics
        self._index = Index(settings.namespace)
        self._queue: WorkQueue[Work] = WorkQueue(random)
        self._wake = asyncio.Event()
        self._leading = False
        self._election = LeaderElection(
            cluster,
            Key(settings.namespace, settings.leader_election.lease),
            identity,
            now=now,
            monotonic=monotonic,
            on_change=self._on_leadership,
        )
        self._subscriptions = Subscriptions(
            settings,
            cluster,
            self._index,
            self.metrics,
            self._enqueue,
            random,
            pod_certificates,
        )
        self._tenant_objects = TenantObjects(
            cluster,
            self._on_tenant_object,
            random,
            lambda kind: self.metrics.watch_restarts.labels(kind.kind).inc(),
        )
        self._applier = Applier(cluster, self._subscriptions.observe, self._election.check, now)
        self.world = World(
            settings,
            cluster,
            self._applier,
            self._subscriptions.stores,
            self._index,
            self.metrics,
            now,
            Makers(new_key, lambda: secrets.token_bytes(32)),
            probe,
            self._enqueue,
            self._election.check,
            self._tenant_objects,
            pods_of=self._subscriptions.pods_of,
        )
        self._reconcilers = {
            AUTH_SERVER: AuthServerReconciler(self.world).run,
            RESOURCE_MAP: MapReconciler(self.world).run,
            SERVER_AUTH: ServerReconciler(self.world).run,
            WEBHOOK: WebhookReconciler(self.world).run,
            OPTED_IN_PODS: OptedInPodsReconciler(self.world).run,
        }
        if pod_certificates is not None:
            signer = PodCertificateReconciler(self.world, pod_certificates)
            self._reconcilers[POD_CERTIFICATE] = signer.run

    async def run(self, on_synced: Callable[[], None] = lambda: None) -> None:
        """Follow the cluster, and reconcile while this replica leads, until cancelled."""
        informers = self._subscriptions.informers
        async with asyncio.TaskGroup() as tasks:
            for one in informers:
                tasks.create_task(one.run())
            for one in informers:
                await one.synced.wait()
            on_synced()
            _log.info("synced", objects=sum(len(one.store) for one in informers))
            tasks.create_task(self._election.run(self._lead))

    async def _lead(self) -> None:
        """Work off everything once, then what changes."""
        self._queue, self._leading = WorkQueue(self._random), True
        try:
            self._subscriptions.enqueue_everything()
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._settings.workers):
                    workers.create_task(self._work())
        except* LeaderLost:
            pass  # the first worker that sees it ends them all
        finally:
            self._leading = False
            await self._tenant_objects.close()

    async def _work(self) -> None:
        while True:
            self._election.check()
            work = self._queue.take(self._monotonic())
            self.metrics.queue_depth.set(len(self._queue))
            self.metrics.queue_age.set(self._queue.age(self._monotonic()))
            if work is None:
                await self._wait()
                continue
            await self._reconcile(work)

    async def _reconcile(self, work: Work) -> None:
        started, result = self._monotonic(), "ok"
        try:
            again = await self._reconcilers[work.kind](work.key)
        except ApiError as error:
            result = "conflict" if error.conflict else "error"
            wait = self._queue.failed(work, self._monotonic())
            _log.warning(
                "reconcile_failed",
                kind=work.kind,
                key=str(work.key),
                status=error.status,
                reason=error.reason,
                again_in=round(wait, 1),
            )
        except (LeaderLost, asyncio.CancelledError):
            raise
        except Exception as bug:  # noqa: BLE001 - one object's fault must not stop the others
            result = "error"
            self._queue.failed(work, self._monotonic())
            _log.failure("reconcile_broken", bug, kind=work.kind, key=str(work.key))
        else:
            self._queue.done(work, self._monotonic())
            if again is not None:
                self._enqueue(work, again)
        self.metrics.reconciles.labels(work.kind, result).inc()
        self.metrics.duration.labels(work.kind).observe(self._monotonic() - started)

    async def _wait(self) -> None:
        due = self._queue.next_due()
        seconds = _IDLE_SECONDS if due is None else max(0.0, due - self._monotonic())
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, _IDLE_SECONDS)):
                await self._wake.wait()

    def _enqueue(self, work: Work, when: datetime | None = None) -> None:
        """Nothing is kept while another replica leads: a new leader begins with everything."""
        if not self._leading:
            return
        now = self._monotonic()
        if when is not None:
            self._queue.add_at(work, now + max(0.0, (when - self._now()).total_seconds()))
        elif work.kind in _FED_BY_MANY:
            self._queue.add_at(work, now + _BURST_SECONDS)
        else:
            self._queue.add(work, now)
        self._wake.set()

    def _on_tenant_object(self, kind: Kind, key: Key) -> None:
        """A Secret or Certificate of ours changed; its name is the server's with a suffix."""
        if key.namespace == self._settings.namespace:
            self._subscriptions.enqueue_auth_servers()
        server = Key(key.namespace, key.name.removesuffix(SUFFIX))
        stored = (self._tenant_objects.follow(kind, key.namespace) or {}).get(key)
        if stored is None:
            self._applier.forget(kind, key)
        elif version(stored) == self._applier.version_of(kind, key):
            return  # our own write
        if server in self._index.servers:
            self._enqueue(Work(SERVER_AUTH, server))

    def _on_leadership(self, leads: bool) -> None:
        self.metrics.leader.set(1 if leads else 0)
        self._wake.set()
