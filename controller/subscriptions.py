"""What is followed in the cluster, and what has to be reconciled when it changes."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from controller.api import kinds
from controller.api.kinds import Kind
from controller.api.objects import (
    Key,
    Object,
    labels,
    same_wish,
    uid,
)
from controller.api.objects import metadata as meta_of
from controller.api.server_auth import ServerAuth
from controller.backoff import Random
from controller.cluster import Cluster
from controller.issuing import issued_leaves
from controller.issuing.pod_certificate_signer import SIGNER
from controller.metrics import Metrics
from controller.reconcile.index import Index
from controller.reconcile.opted_in import INJECTED
from controller.settings import Settings
from controller.watch import Informer, Store, without_managed_fields
from controller.world import (
    AUTH_SERVER,
    OPTED_IN_PODS,
    POD_CERTIFICATE,
    RESOURCE_MAP,
    SERVER_AUTH,
    WEBHOOK,
    Work,
    server_of_pod,
    sidecar_image,
    slim_pod,
)

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


class Subscriptions:
    """Informers that feed the index and ask for work.

    `enqueue` asks for work now, or at a time. `pod_certificates` is the kind of requests to
    answer, None where the cluster has none.
    """

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        index: Index,
        metrics: Metrics,
        enqueue: Callable[[Work, datetime | None], None],
        random: Random,
        pod_certificates: Kind | None,
    ) -> None:
        self._settings, self._cluster, self._index = settings, cluster, index
        self._metrics, self._add, self._random = metrics, enqueue, random
        self._pod_certificates = pod_certificates
        self.pods_of: dict[Key, set[Key]] = defaultdict(set)
        self._informers = dict(self._made_informers())
        # Own pods and injected pods are one kind and two informers.
        self._own_pods = self._informer(
            kinds.POD, self._on_own_pod, namespace=settings.namespace, transform=_slim_own_pod
        )

    @property
    def informers(self) -> list[Informer]:
        return [*self._informers.values(), self._own_pods]

    @property
    def stores(self) -> Mapping[Kind, Mapping[Key, Object]]:
        """What was last seen, by kind."""
        stores: dict[Kind, Mapping[Key, Object]] = {
            kind: one.store for kind, one in self._informers.items()
        }
        stores[kinds.POD] = _Both(self._own_pods.store, self._informers[kinds.POD].store)
        return stores

    def observe(self, kind: Kind, key: Key) -> Object | None:
        """The object as it was last seen, None where there is none or nobody follows its kind."""
        informer = self._informers.get(kind)
        return informer.store.get(key) if informer is not None else None

    def enqueue_auth_servers(self) -> None:
        for key in self._index.auth_servers:
            self._enqueue_auth_server(key)

    def enqueue_everything(self) -> None:
        """What a new leader begins with."""
        self.enqueue_auth_servers()
        for key in self._index.servers:
            self._enqueue(Work(SERVER_AUTH, key))
            self._look_through(key.namespace)
        if self._pod_certificates is not None:
            for key in self._informers[self._pod_certificates].store:
                self._enqueue(Work(POD_CERTIFICATE, key))

    def _look_through(self, namespace: str) -> None:
        self._enqueue(Work(OPTED_IN_PODS, Key(namespace, "")))

    def _enqueue(self, work: Work) -> None:
        self._add(work, None)

    def _enqueue_auth_server(self, key: Key) -> None:
        self._enqueue(Work(AUTH_SERVER, key))
        self._enqueue(Work(RESOURCE_MAP, key))
        webhook = self._settings.webhook
        if webhook is not None and key == Key(self._settings.namespace, webhook.auth_server):
            self._enqueue(Work(WEBHOOK, key))

    def _enqueue_servers(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._enqueue(Work(SERVER_AUTH, key))

    def _informer(self, kind: Kind, on_change: Callable[..., None], **options: Any) -> Informer:
        restarts = self._metrics.watch_restarts.labels(kind.kind)
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
        self._enqueue_auth_server(key)
        if same_wish(before, now):
            return
        self._enqueue_servers(one.key for one in self._index.servers_of(key))

    def _on_server(self, key: Key, before: Object | None, now: Object | None) -> None:
        if before is not None and (now is None or uid(before) != uid(now)):
            self._deny_leaves(ServerAuth.of(before))
        claims = self._index.put_server(key, now)
        # Also for a status of our own: the work before may have been done on an older one.
        self._enqueue(Work(SERVER_AUTH, key))
        if before is None:
            self._look_through(key.namespace)
        if same_wish(before, now):
            return
        for claim in claims:
            self._enqueue_auth_server(claim[0])
            self._enqueue_servers(self._index.claimants(claim))

    def _deny_leaves(self, gone: ServerAuth) -> None:
        """An object made anew under this name is another one: these are not its certificates."""
        auth_server = self._index.counts(gone.auth_server)
        if auth_server is None:
            return
        leaves = dict(gone.certificates)
        if self._pod_certificates is not None:
            requests = self._informers[self._pod_certificates].store
            of_namespace = (
                one for key, one in requests.items() if key.namespace == gone.key.namespace
            )
            spiffe_id = gone.workload.spiffe_id(auth_server.trust_domain)
            leaves |= issued_leaves.of_requests(of_namespace, spiffe_id)
        self._index.deny(gone, leaves)

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
            pods = self.pods_of[server]
            (pods.add if present else pods.discard)(key)
            if not pods:
                del self.pods_of[server]
            if before is None or now is None or labels(before) != labels(now):
                self._enqueue(Work(SERVER_AUTH, server))
        webhook = self._settings.webhook
        images = {sidecar_image(pod) for pod in (before, now) if pod is not None}
        if webhook is not None and images - {webhook.image, ""}:
            self._enqueue_auth_server(Key(self._settings.namespace, webhook.auth_server))

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
        self.enqueue_auth_servers()


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
