"""Reads what the processes themselves count: their metrics and the fake upstream's statistics."""

from dataclasses import dataclass

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from demo.layout import Layout, Server


@dataclass(frozen=True)
class Gauges:
    """What the processes themselves count."""

    layout: Layout
    http: aiohttp.ClientSession

    async def cache_hits(self, server: Server) -> float:
        return await self._counter(server.ops, "tokenward_sidecar_cache_total", result="hit")

    async def releases(self) -> float:
        return await self._counter(self.layout.ops, "tokenward_authserver_releases_total")

    async def upstream(self, user: str) -> dict[str, int]:
        """The upstream's own counts for `user` (see demo.upstream.grants.Counts)."""
        async with self.http.get(f"{self.layout.upstream}/control/stats") as answer:
            counts: dict[str, dict[str, int]] = await answer.json()
            return counts[user]

    async def _counter(self, ops: str, name: str, **labels: str) -> float:
        async with self.http.get(f"{ops}/metrics") as answer:
            families = text_string_to_metric_families(await answer.text())
        samples = (sample for family in families for sample in family.samples)
        return sum(
            sample.value
            for sample in samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
