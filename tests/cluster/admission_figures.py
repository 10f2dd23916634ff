"""What the caller, the API server and a webhook say of admissions, for `measure_admission`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import aiohttp

from tests.bench.webhook import Server
from tests.cluster.servers import RunningWebhook

_HISTOGRAM: Final = "apiserver_admission_webhook_admission_duration_seconds"
_OWN: Final = "tokenward_webhook_request_duration_seconds"
_SIZE: Final = "tokenward_webhook_request_body_bytes"
_LISTEN: Final = "0A"  # a state in /proc/net/tcp

Figures = dict[str, float]


@dataclass(frozen=True)
class Total:
    """Sum and count of a histogram over all its labels, in its own unit."""

    sum: float
    count: float

    def mean_until(self, later: Self) -> float:
        return (later.sum - self.sum) / (later.count - self.count)


async def total(session: aiohttp.ClientSession, url: str, name: str) -> Total:
    """Of the histogram `name` in what `url` answers."""
    async with session.get(url) as answer:
        lines = (await answer.text()).splitlines()
    return Total(*(_sum(lines, f"{name}_{part}") for part in ("sum", "count")))


def _sum(lines: list[str], name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@dataclass(frozen=True)
class Counted:
    """What had been counted at one time; `own` and `size` only where the webhook says so."""

    api_server: Total
    own: Total | None
    size: Total | None
    cpu: float  # seconds
    peers: frozenset[int]

    @classmethod
    async def now(
        cls, session: aiohttp.ClientSession, api_server: str, webhook: RunningWebhook
    ) -> Self:
        own, size = None, None
        if webhook.ops_port:
            ops = f"http://127.0.0.1:{webhook.ops_port}/metrics"
            own, size = [await total(session, ops, name) for name in (_OWN, _SIZE)]
        cpu = Server(webhook.port, webhook.pid).cpu_seconds()
        seen = await total(session, f"{api_server}/metrics", _HISTOGRAM)
        return cls(seen, own, size, cpu, peers(webhook.port))

    def until(self, later: Self) -> Figures:
        """Milliseconds, bytes and connections between the two."""
        reviews = later.api_server.count - self.api_server.count
        found = {
            "mean": self.api_server.mean_until(later.api_server) * 1000,
            "cpu": (later.cpu - self.cpu) / reviews * 1000,
            "connections": len(later.peers - self.peers),
        }
        if self.own and later.own and self.size and later.size:
            found["own"] = self.own.mean_until(later.own) * 1000
            found["bytes"] = self.size.mean_until(later.size)
        return found


def peers(port: int) -> frozenset[int]:
    """Ports of the connections to this one, those of the last minute included (TIME_WAIT)."""
    found = set()
    for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        ends = [int(end.partition(":")[2], 16) for end in (local, remote)]
        if port in ends and state != _LISTEN:
            found.add(ends[ends[0] == port])
    return frozenset(found)


def at_caller(milliseconds: list[float]) -> Figures:
    found = sorted(milliseconds)
    return {"p50": found[len(found) // 2], "p99": found[int(len(found) * 0.99)]}
