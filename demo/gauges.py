"""Reads what the processes themselves count: their metrics and the fake upstream's statistics."""

from collections.abc import Iterable
from dataclasses import dataclass

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from demo.layout import Layout, Server


@dataclass(frozen=True)
class Tally:
    """How calls met one sidecar's memory, and what that cost the authserver."""

    hits: int
    misses: int
    coalesced: int
    releases: int
    exchange_seconds: float

    def since(self, earlier: "Tally") -> "Tally":
        return Tally(
            self.hits - earlier.hits,
            self.misses - earlier.misses,
            self.coalesced - earlier.coalesced,
            self.releases - earlier.releases,
            self.exchange_seconds - earlier.exchange_seconds,
        )


@dataclass(frozen=True)
class Gauges:
    layout: Layout
    http: aiohttp.ClientSession

    async def tally(self, server: Server) -> Tally:
        sidecar = await self._samples(server.ops)
        cache = "tokenward_sidecar_cache_total"
        releases = "tokenward_authserver_releases_total"
        return Tally(
            hits=int(_sum(sidecar, cache, result="hit")),
            misses=int(_sum(sidecar, cache, result="miss")),
            coalesced=int(_sum(sidecar, cache, result="coalesced")),
            releases=int(_sum(await self._samples(self.layout.ops), releases)),
            exchange_seconds=_sum(sidecar, "tokenward_sidecar_exchange_duration_seconds_sum"),
        )

    async def upstream(self, user: str) -> dict[str, int]:
        """The upstream's own counts for `user` (see demo.upstream.grants.Counts)."""
        async with self.http.get(f"{self.layout.upstream}/control/stats") as answer:
            counts: dict[str, dict[str, int]] = await answer.json()
            return counts[user]

    async def access_tokens(self, user: str) -> list[str]:
        """Every access token that the upstream gave for `user`."""
        url = f"{self.layout.upstream}/control/access-tokens"
        async with self.http.get(url, params={"user": user}) as answer:
            tokens: list[str] = await answer.json()
            return tokens

    async def _samples(self, ops: str) -> list[Sample]:
        async with self.http.get(f"{ops}/metrics") as answer:
            families = text_string_to_metric_families(await answer.text())
        return [sample for family in families for sample in family.samples]


def _sum(samples: Iterable[Sample], name: str, **labels: str) -> float:
    return sum(
        sample.value
        for sample in samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
