"""Answers PodCertificateRequests: signed, denied with a reason, or left until it can be told."""

from collections import deque
from datetime import datetime, timedelta
from typing import Final

from chassis.logs import Log
from controller.api.kinds import ADMISSION_POLICY, POD, Kind
from controller.api.objects import Key, Object, created, path
from controller.issuing import pod_certificate_signer as signer
from controller.issuing.authority import InvalidAuthority
from controller.issuing.pod_certificate_signer import Denied, Signed
from controller.reconcile import guard
from controller.reconcile.plan import Event, certificate_issued
from controller.world import POD_CERTIFICATE, Work, World, authority_of, image_of_sidecar

_log = Log("pod_certificates")

_LOOK_AGAIN: Final = timedelta(seconds=5)

# An event is a call more. One worker writes them, a little later, while the others answer. Those of
# the last second go with the process; the log has the same, at once.
_EVENTS: Final = Key("", "")
_EVENTS_WAIT: Final = timedelta(seconds=1)
_GOES_FIRST: Final = timedelta(seconds=30)
_MAX_EVENTS: Final = 1000  # the oldest give way while the API server takes none


class PodCertificateReconciler:
    """`kind` is the version of the kind that this API server serves."""

    def __init__(self, world: World, kind: Kind) -> None:
        self._world, self._kind = world, kind
        self._events: deque[tuple[Object, Event]] = deque(maxlen=_MAX_EVENTS)

    async def run(self, key: Key) -> datetime | None:
        world = self._world
        if key == _EVENTS:
            return await self._record(world.clock())
        request = world.stores[self._kind].get(key)
        if request is None or not signer.is_open(request):
            return None
        now = world.clock()
        # Read now, not from a cache that may be older than the request.
        name = Key(key.namespace, str(path(request, "spec", "podName")))
        pod = await world.cluster.get(POD, name)
        try:
            signed = self._signed(request, pod, now)
        except Denied as denied:
            await self._answer(request, signer.denial(denied, now), "denied")
            if pod is not None:
                self._note(pod, Event("Warning", denied.reason, str(denied)), now)
            _log.warning("request_denied", pod=str(name), reason=denied.reason)
            return None
        except InvalidAuthority:
            signed = None  # said in the MCPAuthServer's status
        if signed is None:
            return now + _LOOK_AGAIN
        await self._answer(request, signed.status, "issued")
        assert pod is not None
        event = certificate_issued(signed.issued.serial, signed.issued.leaf.not_valid_after_utc)
        self._note(pod, event, now)
        server = f"{signed.workload.namespace}/{signed.workload.name}"
        _log.info(
            "certificate_signed",
            server=server,
            holder=f"Pod/{name}",
            serial=event.facts["serial"],
            ends=event.facts["ends"],
        )
        return None

    def _note(self, pod: Object, event: Event, now: datetime) -> None:
        self._events.append((pod, event))
        self._world.enqueue(Work(POD_CERTIFICATE, _EVENTS), now + _EVENTS_WAIT)

    async def _record(self, now: datetime) -> datetime | None:
        """Write what was noted, or come back later: who waits for a certificate goes first.

        What fails stays noted. Raises ApiError.
        """
        requests = self._world.stores[self._kind].values()
        if any(signer.is_open(one) and now < created(one) + _GOES_FIRST for one in requests):
            return now + _EVENTS_WAIT
        while self._events:
            pod, event = noted = self._events[0]
            await self._world.applier.record(pod, event)
            if self._events and self._events[0] is noted:
                self._events.popleft()
        return None

    def _signed(self, request: Object, pod: Object | None, now: datetime) -> Signed | None:
        """The answer; None where what is missing may still come. Raises Denied."""
        world = self._world
        settings = world.settings.webhook
        auth_server = (
            world.index.counts(Key(world.namespace, settings.auth_server))
            if settings is not None
            else None
        )
        if settings is None or auth_server is None:
            raise Denied("NoAuthServer", "this controller signs for no MCPAuthServer")
        policy = world.stores[ADMISSION_POLICY].get(Key("", settings.guard_policy))
        images = set(guard.allowed_images(policy, settings.image, now))
        if pod is not None and image_of_sidecar(pod) not in images:
            # A pod that was made while its image was allowed keeps its image, and its identity.
            former = guard.former_images(policy, settings.image, now, world.sidecar_images())
            images |= {image for image, until in former.items() if created(pod) <= until}
        workload = signer.workload_of(
            request, pod, trust_domain=auth_server.trust_domain, images=images
        )
        server = Key(workload.namespace, workload.name)
        accepted = server in world.index.servers and world.index.servers[server].live
        if accepted:
            accepted = world.index.verdict(server, now).holds
            accepted &= world.index.servers[server].auth_server == auth_server.key
        authority = authority_of(world, auth_server, "workloads")
        if not accepted or authority is None:
            if signer.is_old(request, now):
                text = f"MCPServerAuth {server} is not Accepted by {auth_server.name}"
                raise Denied("NotAccepted", text)
            return None
        return signer.sign(
            request,
            workload,
            trust_domain=auth_server.trust_domain,
            authority=authority.current,
            lifetime=auth_server.workload_certificates.duration,
            now=now,
        )

    async def _answer(self, request: Object, status: object, result: str) -> None:
        world = self._world
        world.check()
        key = Key(request["metadata"]["namespace"], request["metadata"]["name"])
        await world.cluster.patch(self._kind, key, {"status": status}, "status")
        world.metrics.certificates.labels("PodCertificate", result).inc()
