"""Puts a controller together: informers feed the index and the queue, workers empty the queue."""

import asyncio
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from prometheus_client import CollectorRegistry

from chassis.logs import Log
from controller.api import kinds
from controller.api.kinds import Kind
from controller.api.objects import Key, Object, annotations, generation, is_being_deleted, labels
from controller.api.objects import metadata as meta_of
from controller.api.v1alpha1 import SCHEMA, SCHEMA_ANNOTATION
from controller.applier import Applier
from controller.auth_server_reconciler import AuthServerReconciler
from controller.backoff import Random
from controller.cluster import ApiError, Cluster
from controller.issuing.authority import new_key
from controller.issuing.pod_certificate_signer import SIGNER
from controller.leader_election import LeaderElection, LeaderLost
from controller.map_probe import MapProbe
from controller.map_reconciler import MapReconciler
from controller.metrics import Metrics
from controller.pod_certificate_reconciler import PodCertificateReconciler
from controller.reconcile.index import Index
from controller.reconcile.plan import Makers
from controller.server_reconciler import ServerReconciler
from controller.settings import Settings
from controller.watch import Informer, Store, without_managed_fields
from controller.webhook_reconciler import WebhookReconciler
from controller.work_queue import WorkQueue
from controller.world import (
    AUTH_SERVER,
    INJECTED,
    POD_CERTIFICATE,
    RESOURCE_MAP,
    SERVER_AUTH,
    WEBHOOK,
    Work,
    World,
    server_of_pod,
    slim_pod,
)

_log = Log("controller")

_OWN_KINDS: Final = (
    kinds.SECRET,
    kinds.CONFIG_MAP,
    kinds.DEPLOYMENT,
    kinds.VOLUME_CLAIM,
    kinds.JOB,
    kinds.SERVICE,
    kinds.SERVICE_ACCOUNT,
    kinds.NETWORK_POLICY,
    kinds.DISRUPTION_BUDGET,
)
_IDLE_SECONDS: Final = 60.0
# A burst of changes rewrites the map once.
_MAP_DELAY_SECONDS: Final = 0.3


class OldSchema(Exception):
    """A CustomResourceDefinition is missing or older than this controller."""


async def check_schemas(cluster: Cluster) -> None:
    """Raises OldSchema: an old schema would drop new members without a word."""
    for plural in (kinds.MCP_AUTH_SERVER.plural, kinds.MCP_SERVER_AUTH.plural):
        name = f"{plural}.tokenward.dev"
        stored = await cluster.get(kinds.CRD, Key("", name))
        version = annotations(stored).get(SCHEMA_ANNOTATION, "") if stored is not None else ""
        if not version.isdecimal() or int(version) < SCHEMA:
            raise OldSchema(
                f"CustomResourceDefinition {name} is missing or older; apply manifests/crds"
            )


async def pod_certificates_of(cluster: Cluster) -> Kind | None:
    """The version of PodCertificateRequest that this API server serves, None where it has none."""
    for kind in (kinds.POD_CERTIFICATE_REQUEST, kinds.POD_CERTIFICATE_REQUEST_BETA):
        if await cluster.serves(kind):
            return kind
    return None


class Controller:
    """Everything but the sockets. `now` is UTC, `monotonic` counts seconds.

    `pod_certificates` is the kind of requests to answer, None where the cluster has none.
    """

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        registry: CollectorRegistry,
        probe: MapProbe,
        *,
        identity: str,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        random: Random,
        pod_certificates: Kind | None = None,
    ) -> None:
        self._pod_certificates = pod_certificates
        self._settings, self._cluster = settings, cluster
        self._monotonic, self._random, self._now = monotonic, random, now
        self.metrics = Metrics(registry)
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
        self._informers = dict(self._made_informers())
        # Own pods and injected pods are one kind and two informers.
        self._own_pods = self._informer(
            kinds.POD, self._on_own_pod, namespace=settings.namespace, transform=_slim_own_pod
        )
        stores: dict[Kind, Mapping[Key, Object]] = {
            kind: one.store for kind, one in self._informers.items()
        }
        stores[kinds.POD] = _Both(self._own_pods.store, self._informers[kinds.POD].store)
        self.world = World(
            settings,
            cluster,
            Applier(cluster, self._observe, self._election.check, now),
            stores,
            self._index,
            self.metrics,
            now,
            Makers(new_key, lambda: secrets.token_bytes(32)),
            probe,
            self._enqueue,
            self._election.check,
        )
        self._reconcilers = {
            AUTH_SERVER: AuthServerReconciler(self.world).run,
            RESOURCE_MAP: MapReconciler(self.world).run,
            SERVER_AUTH: ServerReconciler(self.world).run,
            WEBHOOK: WebhookReconciler(self.world).run,
        }
        if pod_certificates is not None:
            signer = PodCertificateReconciler(self.world, pod_certificates)
            self._reconcilers[POD_CERTIFICATE] = signer.run

    async def run(self, on_synced: Callable[[], None] = lambda: None) -> None:
        """Follow the cluster, and reconcile while this replica leads, until cancelled."""
        informers = [*self._informers.values(), self._own_pods]
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
            for key in self._index.auth_servers:
                self._enqueue_auth_server(key)
            for key in self._index.servers:
                self._enqueue(Work(SERVER_AUTH, key))
            if self._pod_certificates is not None:
                for key in self._informers[self._pod_certificates].store:
                    self._enqueue(Work(POD_CERTIFICATE, key))
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._settings.workers):
                    workers.create_task(self._work())
        except* LeaderLost:
            pass  # the first worker that sees it ends them all
        finally:
            self._leading = False

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
        elif work.kind in (RESOURCE_MAP, WEBHOOK):
            self._queue.add_at(work, now + _MAP_DELAY_SECONDS)
        else:
            self._queue.add(work, now)
        self._wake.set()

    def _enqueue_auth_server(self, key: Key) -> None:
        self._enqueue(Work(AUTH_SERVER, key))
        self._enqueue(Work(RESOURCE_MAP, key))
        webhook = self._settings.webhook
        if webhook is not None and key == Key(self._settings.namespace, webhook.auth_server):
            self._enqueue(Work(WEBHOOK, key))

    def _enqueue_servers(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._enqueue(Work(SERVER_AUTH, key))

    def _on_leadership(self, leads: bool) -> None:
        self.metrics.leader.set(1 if leads else 0)
        self._wake.set()

    def _observe(self, kind: Kind, key: Key) -> Object | None:
        informer = self._informers.get(kind)
        return informer.store.get(key) if informer is not None else None

    # Informers.

    def _informer(self, kind: Kind, on_change: Callable[..., None], **options: Any) -> Informer:
        restarts = self.metrics.watch_restarts.labels(kind.kind)
        return Informer(
            self._cluster, kind, on_change, on_restart=restarts.inc, random=self._random, **options
        )

    def _made_informers(self) -> Iterator[tuple[Kind, Informer]]:
        yield kinds.MCP_AUTH_SERVER, self._informer(kinds.MCP_AUTH_SERVER, self._on_auth_server)
        yield kinds.MCP_SERVER_AUTH, self._informer(kinds.MCP_SERVER_AUTH, self._on_server)
        yield (
            kinds.NAMESPACE,
            self._informer(kinds.NAMESPACE, self._on_namespace, transform=_slim_namespace),
        )
        yield (
            kinds.POD,
            self._informer(
                kinds.POD,
                self._on_injected_pod,
                selectors={"labelSelector": f"{INJECTED}=true"},
                transform=slim_pod,
            ),
        )
        for kind in _OWN_KINDS:
            yield (
                kind,
                self._informer(kind, self._on_own_object, namespace=self._settings.namespace),
            )
        webhook = self._settings.webhook
        if webhook is not None:
            name = webhook.mutating_webhook_configuration
            yield (
                kinds.MUTATING_WEBHOOK,
                self._informer(
                    kinds.MUTATING_WEBHOOK,
                    self._on_webhook_configuration,
                    selectors={"fieldSelector": f"metadata.name={name}"},
                ),
            )

        if webhook is not None:
            yield (
                kinds.ADMISSION_POLICY,
                self._informer(
                    kinds.ADMISSION_POLICY,
                    self._on_webhook_configuration,
                    selectors={"fieldSelector": f"metadata.name={webhook.guard_policy}"},
                ),
            )
        if self._pod_certificates is not None:
            yield (
                self._pod_certificates,
                self._informer(
                    self._pod_certificates,
                    self._on_request,
                    selectors={"fieldSelector": f"spec.signerName={SIGNER}"},
                ),
            )

    def _on_request(self, key: Key, before: Object | None, now: Object | None) -> None:
        if before is None and now is not None:
            self._enqueue(Work(POD_CERTIFICATE, key))

    def _on_auth_server(self, key: Key, before: Object | None, now: Object | None) -> None:
        self._index.put_auth_server(key, now)
        if _same_wish(before, now):
            return
        self._enqueue_auth_server(key)
        self._enqueue_servers(one.key for one in self._index.servers_of(key))

    def _on_server(self, key: Key, before: Object | None, now: Object | None) -> None:
        claims = self._index.put_server(key, now)
        if _same_wish(before, now):
            return
        self._enqueue(Work(SERVER_AUTH, key))
        for claim in claims:
            self._enqueue_auth_server(claim[0])
            self._enqueue_servers(self._index.claimants(claim))

    def _on_namespace(self, key: Key, before: Object | None, now: Object | None) -> None:
        self._index.put_namespace(key.name, now)
        if before is not None and now is not None and labels(before) == labels(now):
            return
        keys = self._index.servers_in(key.name)
        self._enqueue_servers(keys)
        for auth_server in {self._index.servers[one].auth_server for one in keys}:
            self._enqueue_auth_server(auth_server)

    def _on_injected_pod(self, key: Key, before: Object | None, now: Object | None) -> None:
        for pod, present in ((before, False), (now, True)):
            if pod is None or (server := server_of_pod(pod)) is None:
                continue
            pods = self.world.pods_of[server]
            (pods.add if present else pods.discard)(key)
            if not pods:
                del self.world.pods_of[server]
            if before is None or now is None:
                self._enqueue(Work(SERVER_AUTH, server))

    def _on_own_pod(self, key: Key, before: Object | None, now: Object | None) -> None:
        for auth_server in self._index.auth_servers:
            self._enqueue(Work(RESOURCE_MAP, auth_server))
            self._enqueue(Work(AUTH_SERVER, auth_server))

    def _on_own_object(self, key: Key, before: Object | None, now: Object | None) -> None:
        stored = now or before or {}
        if stored.get("kind") == "ConfigMap":
            self._index.put_shard(key.name, now)
        for auth_server in self._index.auth_servers:
            if auth_server.namespace == self._settings.namespace:
                self._enqueue_auth_server(auth_server)
                if stored.get("kind") == "Secret" and key.name.endswith("-authority"):
                    self._enqueue_servers(o.key for o in self._index.servers_of(auth_server))

    def _on_webhook_configuration(
        self, key: Key, before: Object | None, now: Object | None
    ) -> None:
        for auth_server in self._index.auth_servers:
            self._enqueue_auth_server(auth_server)


def _same_wish(before: Object | None, now: Object | None) -> bool:
    """Whether nothing changed that anybody wishes: only the status, which is ours."""
    if before is None or now is None:
        return False
    return (
        meta_of(before).get("uid") == meta_of(now).get("uid")
        and generation(before) == generation(now)
        and annotations(before) == annotations(now)
        and is_being_deleted(before) == is_being_deleted(now)
    )


def _slim_namespace(stored: dict[str, Any]) -> Object:
    meta = meta_of(stored)
    kept = {name: meta.get(name) for name in ("name", "uid", "resourceVersion", "labels")}
    return {"kind": "Namespace", "metadata": kept}


def _slim_own_pod(stored: dict[str, Any]) -> Object:
    return without_managed_fields(stored)


class _Both(Mapping[Key, Object]):
    """The store of our namespace's pods, and that of injected pods, which lie elsewhere."""

    def __init__(self, own: Store, injected: Store) -> None:
        self._own, self._injected = own, injected

    def __getitem__(self, key: Key) -> Object:
        stored = self._own.get(key) or self._injected.get(key)
        if stored is None:
            raise KeyError(key)
        return stored

    def __iter__(self) -> Iterator[Key]:
        yield from self._own
        yield from (key for key in self._injected if key not in self._own)

    def __len__(self) -> int:
        return len(set(self._own) | set(self._injected))
