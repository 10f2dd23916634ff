"""A signed-in user, and an upstream `orders` whose tokens are made of those of `acme`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authserver.connections.timeouts import RefreshTimeouts
from tests.fakes.exchanging_upstream import ExchangingUpstream
from tests.support.database_file import sql
from tests.support.deployment import NOTES, Answer, Deployment, SignedIn, deployed
from tests.support.workloads import NOTES_SERVER, UNLIMITED, replica

EXCHANGE = {
    "upstream": "acme",
    "audience": ["orders", "billing"],
    "resource": ["https://orders.example.com/api"],
}
SCOPES = ["orders.read", "orders.write"]


def orders(**members: Any) -> dict[str, Any]:
    entry = {"name": "orders", "displayName": "Orders", "exchange": EXCHANGE, "scopes": SCOPES}
    return {name: value for name, value in (entry | members).items() if value is not None}


def notes(*upstreams: object) -> list[dict[str, Any]]:
    workload = {"namespace": "mcp-servers", "name": "notes"}
    listed = list(upstreams) or ["acme", "orders"]
    return [{"resource": NOTES, "workload": workload, "upstreams": listed, "scopes": ["mcp"]}]


@dataclass
class Exchanging:
    """`world` is a replica for sidecars alone, `original` serves browsers and clients too."""

    world: Deployment
    original: Deployment
    upstream: ExchangingUpstream
    user: SignedIn

    async def exchange(self, **changes: str | None) -> Answer:
        return await self.world.exchange(
            NOTES_SERVER, self.user.access_token, **({"audience": "orders"} | changes)
        )

    async def token(self, **changes: str | None) -> str:
        answer = await self.exchange(**changes)
        assert answer.status == 200, answer.text
        return str(answer.json()["access_token"])

    async def sql(self, statement: str, *arguments: object) -> list[Any]:
        return await sql(self.world.folder, statement, *arguments)


@asynccontextmanager
async def exchanging(
    folder: Path,
    *,
    lifetime: int | None = 100,
    gives_refresh_tokens: bool = False,
    exchange_only: bool = False,
    timeouts: RefreshTimeouts | None = None,
    **members: Any,
) -> AsyncIterator[Exchanging]:
    fake = ExchangingUpstream(lifetime=lifetime, gives_refresh_tokens=gives_refresh_tokens)
    async with fake.serve():
        acme = fake.configuration[0] | {"exchangeOnly": exchange_only}
        upstreams = [acme, orders(**members)]
        async with (
            deployed(folder, upstreams=upstreams, resources=notes(), limits=UNLIMITED) as world,
            replica(world, refresh_timeouts=timeouts) as patient,
        ):
            yield Exchanging(patient, world, fake, await world.signed_in())
