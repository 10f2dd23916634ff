"""One leader among the replicas, by a Lease (coordination.k8s.io/v1).

A lease lasts ten seconds. A leader that could not renew it for six stops by itself, and nobody
takes it before ten have passed on the taker's own monotonic clock: clocks of two machines are never
compared. A leader that ends gives it up at once. `holds` is asked before every write, so that a
process that was stopped and goes on writes nothing.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, Final, Protocol

from chassis.logs import Log
from controller.api.kinds import LEASE, Kind
from controller.api.objects import Key, Object, format_micro_time, metadata, path
from controller.cluster import ApiError

_log = Log("leader_election")

LEASE_SECONDS: Final = 10.0
RENEW_LIMIT_SECONDS: Final = 6.0
RETRY_SECONDS: Final = 2.0


class LeaderLost(Exception):
    """Another replica may lead now; nothing more may be written."""


class Leases(Protocol):
    """What is needed of the API server; `controller.cluster.Cluster` is one."""

    async def get(self, kind: Kind, key: Key) -> Object | None: ...

    async def create(self, wanted: Object) -> Object: ...

    async def update(self, wanted: Object) -> Object: ...


class LeaderElection:
    """Takes part in the election as `identity`.

    `now` is UTC, for people who read the Lease; `monotonic` decides.
    """

    def __init__(
        self,
        leases: Leases,
        key: Key,
        identity: str,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_change: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._leases, self._key, self._identity = leases, key, identity
        self._now, self._monotonic, self._pause = now, monotonic, pause
        self._on_change = on_change
        self._seen: tuple[str, float] = ("", 0.0)  # a version of the Lease, and since when
        self._renewed_at: float | None = None
        self._term = 0

    @property
    def holds(self) -> bool:
        """Whether we lead, by our own clock, at this moment."""
        renewed = self._renewed_at
        return renewed is not None and self._monotonic() < renewed + RENEW_LIMIT_SECONDS

    def check(self) -> None:
        """Raises LeaderLost unless we lead at this moment."""
        if not self.holds:
            raise LeaderLost

    async def run(self, lead: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for the lease, run `lead` while we have it, and so on until cancelled."""
        try:
            while True:
                while not await self._try():
                    await self._pause(RETRY_SECONDS)
                await self._lead(lead)
        finally:
            await self._release()

    async def _lead(self, lead: Callable[[], Coroutine[Any, Any, None]]) -> None:
        _log.info("leading", identity=self._identity)
        self._on_change(True)
        task, term = asyncio.create_task(lead()), self._term
        try:
            while self.holds and self._term == term and not task.done():
                await self._pause(RETRY_SECONDS)
                await self._try()
        finally:
            self._on_change(False)
            lost = not self.holds or self._term != term
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, LeaderLost):
                await task
            if lost:
                _log.warning("leader_lost", identity=self._identity)

    async def _try(self) -> bool:
        """Take or renew the Lease; whether we have it."""
        started = self._monotonic()
        try:
            async with asyncio.timeout(RENEW_LIMIT_SECONDS):
                taken = await self._take_or_renew(started)
        except (ApiError, TimeoutError) as error:
            _log.warning("lease_not_renewed", error=type(error).__name__)
            return False
        if taken:
            # A term that ended by our own clock is over, although nobody else took the Lease.
            self._term += int(not self.holds)
            # Counted from before the request, for it may have been a long one.
            self._renewed_at = started
        else:
            self._renewed_at = None
        return taken

    async def _take_or_renew(self, started: float) -> bool:
        lease = await self._leases.get(LEASE, self._key)
        if lease is None:
            return await self._write(self._lease(None), new=True)
        version = str(metadata(lease).get("resourceVersion", ""))
        if self._seen[0] != version:
            self._seen = (version, started)
        holder = path(lease, "spec", "holderIdentity")
        lasts = path(lease, "spec", "leaseDurationSeconds")
        seconds = float(lasts) if isinstance(lasts, int) else LEASE_SECONDS
        if holder and holder != self._identity and started < self._seen[1] + seconds:
            return False
        return await self._write(self._lease(lease), new=False)

    async def _write(self, lease: Object, *, new: bool) -> bool:
        try:
            made = await (self._leases.create(lease) if new else self._leases.update(lease))
        except ApiError as error:
            if error.conflict:
                return False  # another replica was faster
            raise
        self._seen = (str(metadata(made).get("resourceVersion", "")), self._monotonic())
        return True

    def _lease(self, before: Object | None) -> Object:
        now = format_micro_time(self._now())
        spec = dict(path(before, "spec") or {}) if before is not None else {}
        if spec.get("holderIdentity") != self._identity:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        spec["holderIdentity"] = self._identity
        spec["leaseDurationSeconds"] = int(LEASE_SECONDS)
        spec["renewTime"] = now
        meta = {"name": self._key.name, "namespace": self._key.namespace}
        if before is not None:
            meta["resourceVersion"] = str(metadata(before).get("resourceVersion", ""))
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": meta,
            "spec": spec,
        }

    async def _release(self) -> None:
        """Let another replica lead at once."""
        if not self.holds:
            return
        self._renewed_at = None
        with contextlib.suppress(ApiError, TimeoutError):
            async with asyncio.timeout(RETRY_SECONDS):
                lease = await self._leases.get(LEASE, self._key)
                if lease is None or path(lease, "spec", "holderIdentity") != self._identity:
                    return
                given_up = dict(self._lease(lease))
                given_up["spec"] = {**given_up["spec"], "holderIdentity": ""}
                await self._leases.update(given_up)
                _log.info("lease_released", identity=self._identity)
