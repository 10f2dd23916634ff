"""MCPAuthServer: everything an authserver needs, from one object."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from controller.api import conditions
from controller.api.auth_server import AuthServer
from controller.api.conditions import Condition, Reason
from controller.api.objects import Object, format_time, labels, path
from controller.api.v1alpha1 import CONFIRM_SIDECAR
from controller.issuing import leaves
from controller.issuing.authority import InvalidAuthority
from controller.reconcile import (
    authserver_file,
    cert_manager,
    certificates,
    configuration_check,
    keys,
)
from controller.reconcile.acceptance import internal_host
from controller.reconcile.authserver_objects import Objects
from controller.reconcile.cert_manager import Given
from controller.reconcile.certificates import AuthorityPlan
from controller.reconcile.keys import KeyPlan
from controller.reconcile.plan import INSTANCE_LABEL, Event, Makers, Plan
from controller.reconcile.surroundings import Observed, Surroundings


def plan(
    auth_server: AuthServer,
    observed: Observed,
    surroundings: Surroundings,
    now: datetime,
    makers: Makers,
) -> Plan:
    """What to do, and the status afterwards."""
    reconciliation = _Reconciliation(auth_server, observed, surroundings, now, makers)
    return reconciliation.run()


class _Reconciliation:
    """One pass over one object; parts of it are asked in the order of their need."""

    def __init__(
        self,
        auth_server: AuthServer,
        observed: Observed,
        surroundings: Surroundings,
        now: datetime,
        makers: Makers,
    ) -> None:
        self._auth_server, self._observed, self._surroundings = auth_server, observed, surroundings
        self._now, self._makers = now, makers
        self._create: list[Object] = []
        self._update: list[Object] = []
        self._apply: list[Object] = []
        self._events: list[Event] = []
        self._due: list[datetime] = []
        self._wanted_certificates: list[Object] = []
        self._expiry: datetime | None = None

    def run(self) -> Plan:
        key_plan = self._keys()
        workloads, servers = self._authority("workloads"), self._authority("servers")
        content = authserver_file.content(self._auth_server, key_plan.encryption, key_plan.signing)
        objects = Objects(
            self._auth_server,
            self._surroundings.image,
            content,
            key_plan,
            self._observed.deployment,
        )
        certified = self._certificates(objects, workloads, servers)
        complete = key_plan.usable and certified.holds
        valid = self._configuration(objects, content, complete)
        stored = self._storage(objects, key_plan)
        if complete:
            self._apply.extend(self._kept_up(objects, valid))
        available = self._available()
        results = [key_plan.condition, certified, valid, stored, available]
        status = self._status(results, key_plan)
        return Plan(
            tuple(self._create),
            tuple(self._update),
            tuple(self._apply),
            tuple(
                configuration_check.stale_candidates(self._auth_server, self._observed, content)
                if key_plan.usable
                else ()
            ),
            tuple(self._wanted_certificates),
            status,
            tuple(self._events),
            min(self._due, default=None),
            self._expiry,
        )

    def _keys(self) -> KeyPlan:
        made = keys.plan(
            self._auth_server,
            self._observed.secrets,
            storage_exists=self._observed.volume_claim is not None,
            now=self._now,
            makers=self._makers,
        )
        self._create += made.create
        self._update += made.update
        if made.again_at is not None:
            self._due.append(made.again_at)
        return made

    def _authority(self, which: certificates.Which) -> AuthorityPlan:
        made = certificates.plan_authority(
            self._auth_server,
            which,
            self._observed.secrets,
            cluster_domain=self._surroundings.cluster_domain,
            held_up=which == "servers" and self._surroundings.pods_without_bundle > 0,
            now=self._now,
            makers=self._makers,
        )
        self._create += made.create
        self._update += made.update
        if made.again_at is not None:
            self._due.append(made.again_at)
        return made

    def _certificates(
        self, objects: Objects, workloads: AuthorityPlan, servers: AuthorityPlan
    ) -> Condition:
        problem = workloads.problem or servers.problem
        if problem is not None:
            return problem
        self._apply.append(objects.authorities(workloads.bundle))
        if servers.state is None:
            return self._by_cert_manager(objects, servers.bundle)
        try:
            leaf = certificates.plan_leaf(
                self._observed.secrets.get(f"{self._auth_server.name}-internal"),
                self._template(internal_host(self._auth_server)),
                servers.state,
                jitter_of=self._auth_server.uid,
                now=self._now,
                makers=self._makers,
            )
        except InvalidAuthority as invalid:
            return _certificates_not_ready(
                Reason.AUTHORITY_INVALID, f"the authority of servers {invalid}"
            )
        self._due.append(leaf.again_at)
        self._expiry = leaf.credential.ends
        if leaf.event is not None:
            self._events.append(leaf.event)
        self._apply.append(objects.serving_secret(leaf.data))
        return Condition("CertificatesReady", "True", Reason.ISSUED, "")

    def _template(self, host: str) -> leaves.Template:
        settings = self._auth_server.server_certificates
        hosts = [host, f"{host}.{self._surroundings.cluster_domain}"]
        return leaves.server_template(hosts, settings.duration, settings.renew_before)

    def _by_cert_manager(self, objects: Objects, trusted: bytes) -> Condition:
        """The internal listener's certificate and the webhook's; `trusted` is in PEM."""
        hosts = {f"{self._auth_server.name}-internal": internal_host(self._auth_server)}
        if (webhook := self._surroundings.webhook) is not None:
            hosts[webhook.secret_name] = f"{webhook.service}.{self._auth_server.namespace}.svc"
        verdicts = []
        for name, host in hosts.items():
            template = self._template(host)
            wanted = objects.certificate(name, template)
            self._wanted_certificates.append(wanted)
            given = self._observed.certificates.get(name, Given())
            given = replace(given, secret=self._observed.secrets.get(name))
            verdicts.append(cert_manager.judge(wanted, given, template, trusted, self._now))
        for one in verdicts:
            if one.credential is None:
                if one.again_at is not None:
                    self._due.append(one.again_at)
                return _certificates_not_ready(one.reason, one.message)
        self._expiry = min(one.credential.ends for one in verdicts if one.credential is not None)
        return Condition("CertificatesReady", "True", Reason.ISSUED, "")

    def _configuration(
        self, objects: Objects, content: Mapping[str, Any], complete: bool
    ) -> Condition:
        made = configuration_check.plan(
            self._auth_server, self._observed, objects, content, complete=complete
        )
        self._create += made.create
        self._apply += made.apply
        return made.condition

    def _storage(self, objects: Objects, key_plan: KeyPlan) -> Condition:
        if self._auth_server.postgresql is not None:
            return Condition("StorageReady", "True", Reason.CONFIGURED, "")
        claim = self._observed.volume_claim
        if claim is None and key_plan.usable:
            self._create.append(objects.volume_claim())
        if path(claim, "status", "phase") == "Bound" if claim is not None else False:
            return Condition("StorageReady", "True", Reason.BOUND, "")
        return Condition(
            "StorageReady",
            "False",
            Reason.WAITING_FOR_VOLUME,
            f"PersistentVolumeClaim {self._auth_server.name} is not bound",
        )

    def _kept_up(self, objects: Objects, valid: Condition) -> Iterator[Object]:
        for one in objects.owned():
            # With a bad or unchecked configuration the running pods stay as they are.
            if one["kind"] != "Deployment" or valid.holds:
                yield one

    def _available(self) -> Condition:
        deployment = self._observed.deployment
        ready = path(deployment, "status", "availableReplicas") if deployment else 0
        if isinstance(ready, int) and ready > 0:
            return Condition("Available", "True", Reason.AVAILABLE, "")
        return Condition("Available", "False", Reason.WAITING_FOR_PODS, "no pod is available")

    def _status(self, results: list[Condition], key_plan: KeyPlan) -> dict[str, Any]:
        ready = self._ready(results)
        before = self._auth_server.status
        issuer = self._auth_server.issuer
        status: dict[str, Any] = {
            "observedGeneration": self._auth_server.generation,
            "phase": _phase(ready, results),
            "issuer": issuer,
            "jwksUri": f"{issuer}/.well-known/jwks.json",
            "internalUrl": f"https://{internal_host(self._auth_server)}:8443",
            "servers": self._surroundings.accepted,
            "readyReplicas": self._ready_replicas(),
            "conditions": conditions.render(
                [ready, *results], before.get("conditions"), self._auth_server.generation, self._now
            ),
        }
        if self._expiry is not None:
            status["certificateExpiry"] = format_time(self._expiry)
        if key_plan.usable or before.get("keysMade"):
            status["keysMade"] = True
        return status

    def _ready(self, results: list[Condition]) -> Condition:
        old = {
            image: count
            for image, count in sorted(self._surroundings.old_sidecars.items())
            if image not in self._auth_server.confirmed_sidecars
        }
        ready = conditions.summary(results, Reason.OLD_SIDECAR_ALLOWED if old else Reason.READY)
        if not old or not ready.holds:
            return ready
        pods = ", ".join(f"{count} with {image}" for image, count in old.items())
        text = (
            f"pods run a sidecar whose last day is over ({pods}); restart them, or confirm the "
            f"image in the annotation {CONFIRM_SIDECAR}"
        )
        former = conditions.find(self._auth_server.status, "Ready") or {}
        if former.get("reason") != ready.reason.value:
            self._events.append(Event("Warning", ready.reason.value, text))
        return replace(ready, message=text)

    def _ready_replicas(self) -> int:
        deployment = self._observed.deployment
        ready = path(deployment, "status", "readyReplicas") if deployment is not None else 0
        return ready if isinstance(ready, int) else 0


def own_pods(auth_server: AuthServer, pods: Iterable[Object]) -> tuple[Object, ...]:
    """The pods with this instance's label."""
    return tuple(one for one in pods if labels(one).get(INSTANCE_LABEL) == auth_server.name)


def _certificates_not_ready(reason: Reason, message: str) -> Condition:
    return Condition("CertificatesReady", "False", reason, message)


def _phase(ready: Condition, results: list[Condition]) -> str:
    if ready.holds:
        return "Degraded" if ready.reason is Reason.OLD_SIDECAR_ALLOWED else "Ready"
    by_type = {one.type: one for one in results}
    if any(by_type[one].status == "False" for one in ("ConfigurationValid", "KeysReady")):
        return "Degraded" if by_type["Available"].holds else "Failed"
    return "Degraded" if by_type["Available"].holds else "Progressing"
