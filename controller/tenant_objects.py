"""What the controller keeps in tenants' namespaces, followed so that a loss is noticed at once.

It may read these namespaces only where the operator has prepared them, so each is followed for
itself, once there is a server in it, and while this replica leads.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from controller.api.kinds import Kind
from controller.api.objects import Key, Object
from controller.backoff import Random
from controller.reconcile.plan import MANAGED_BY_LABEL, MANAGER
from controller.watch import Informer, Source

_SELECTORS: Final = {"labelSelector": f"{MANAGED_BY_LABEL}={MANAGER}"}

OnChange = Callable[[Kind, Key], None]
"""Hears that an object was made, has changed, or is gone."""


class TenantObjects:
    """Objects of ours, by kind and namespace. `on_restart` hears of each new list of a kind."""

    def __init__(
        self,
        source: Source,
        on_change: OnChange,
        random: Random,
        on_restart: Callable[[Kind], None] = lambda _: None,
    ) -> None:
        self._source, self._on_change, self._random = source, on_change, random
        self._on_restart = on_restart
        self._informers: dict[tuple[Kind, str], tuple[Informer, asyncio.Task[None]]] = {}

    def follow(self, kind: Kind, namespace: str) -> Mapping[Key, Object] | None:
        """What is there now; None while that is not known. Follows it from the first call on."""
        known = self._informers.get((kind, namespace))
        if known is None or known[1].done():
            informer = self._informer(kind, namespace)
            task = asyncio.get_running_loop().create_task(informer.run())
            known = self._informers[kind, namespace] = (informer, task)
        return known[0].store if known[0].synced.is_set() else None

    def forget(self, namespace: str) -> None:
        """Nobody of this namespace is left."""
        for kind, of in list(self._informers):
            if of == namespace:
                self._informers.pop((kind, of))[1].cancel()

    async def close(self) -> None:
        """Follow nothing any more."""
        tasks = [task for _, task in self._informers.values()]
        self._informers.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _informer(self, kind: Kind, namespace: str) -> Informer:
        def changed(key: Key, before: Object | None, now: Object | None) -> None:
            self._on_change(kind, key)

        return Informer(
            self._source,
            kind,
            changed,
            namespace=namespace,
            selectors=_SELECTORS,
            random=self._random,
            on_restart=lambda: self._on_restart(kind),
            patient=True,
        )
