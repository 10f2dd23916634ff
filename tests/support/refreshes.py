"""A signed-in user whose connection is refreshed by an upstream that a test commands."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authserver.connections.timeouts import RefreshTimeouts
from authserver.storage.records import Connection, ConnectionKey
from chassis.spiffe_id import Workload
from tests.fakes.upstream import (
    HostileUpstream,
)
from tests.support.database_file import sql
from tests.support.deployment import Answer, Deployment, SignedIn, deployed
from tests.support.forged_tokens import claims_of
from tests.support.workloads import (
    NOTES_SERVER,
    UNLIMITED,
    replica,
)

MUST_SIGN_IN = (400, {"error": "invalid_grant"})


UNAVAILABLE = (503, {"error": "temporarily_unavailable"})


FRESH, STALE, EXPIRED = 0, 90, 100  # seconds after the sign-in; tokens live for 100


@dataclass
class Rig:
    """A user signed in at a hostile upstream, and an authserver that cancels who goes away."""

    world: Deployment
    upstream: HostileUpstream
    user: SignedIn

    async def exchange(self, **changes: str | None) -> Answer:
        return await self.world.exchange(NOTES_SERVER, self.user.access_token, **changes)

    async def token(self, **changes: str | None) -> str:
        answer = await self.exchange(**changes)
        assert answer.status == 200, answer.text
        return str(answer.json()["access_token"])

    async def connection(self) -> Connection:
        """The user's connection as it is stored now."""
        user_id = claims_of(self.user.access_token)["sub"]
        key = ConnectionKey(user_id, Workload("mcp-servers", "notes"), "acme")
        connection = await self.world.server._stores.connections.get(key)
        assert connection is not None
        return connection

    async def revoke(self, user: SignedIn) -> None:
        fields = {"token": user.access_token, "client_id": user.client_id}
        assert (await self.world.call("POST", "/oauth/revoke", data=fields)).status == 200

    async def sql(self, statement: str, *arguments: object) -> list[Any]:
        return await sql(self.world.folder, statement, *arguments)

    @asynccontextmanager
    async def refusing(self, updates_of: str) -> AsyncIterator[None]:
        """Storage that fails whenever this column of a connection is written."""
        await self.sql(
            f"CREATE TRIGGER broken BEFORE UPDATE OF {updates_of} ON connections"
            " BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
        try:
            yield
        finally:
            await self.sql("DROP TRIGGER broken")


@asynccontextmanager
async def rig(
    folder: Path,
    *,
    rotates: bool = True,
    lifetime: int | None = 100,
    answer_within: float | None = None,
    timeouts: RefreshTimeouts | None = None,
    **members: Any,
) -> AsyncIterator[Rig]:
    async with HostileUpstream(lifetime=lifetime).serve() as upstream:
        entry = upstream.configuration[0] | {"rotatesRefreshTokens": rotates} | members
        async with (
            deployed(folder, upstreams=[entry], limits=UNLIMITED) as world,
            replica(world, answer_within=answer_within, refresh_timeouts=timeouts) as patient,
        ):
            yield Rig(patient, upstream, await world.signed_in())


async def left_behind(rigged: Rig, seconds: int) -> None:
    """A claim of a process that is gone, so many seconds old."""
    then = int(rigged.world.clock()) - seconds
    await rigged.sql(
        "UPDATE connections SET refresh_claim = 'gone', refresh_claimed_at = ?,"
        " first_claimed_at = ?",
        then,
        then,
    )
