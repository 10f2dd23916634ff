"""Exchanges that are denied, each for one reason."""

from collections.abc import Awaitable, Callable
from typing import Any

from tests.support.database_file import sql
from tests.support.deployment import NOTES, TASKS, Deployment
from tests.support.forged_tokens import claims_of
from tests.support.workloads import (
    NOTES_SERVER,
    TASKS_SERVER,
    forged,
)

# What a caller holds that is not the owner, or whose token is not the session's; each with the
# reason that only the audit says. Every case is offered a session that the owner could use.
Case = Callable[[Deployment, str], Awaitable[tuple[str, str]]]


async def another_name(world: Deployment, jwt: str) -> tuple[str, str]:
    return TASKS_SERVER, jwt


async def another_namespace(world: Deployment, jwt: str) -> tuple[str, str]:
    return "other/notes", jwt


def with_claims(**claims: Any) -> Case:
    async def case(world: Deployment, jwt: str) -> tuple[str, str]:
        return NOTES_SERVER, forged(world, jwt, **claims)

    return case


async def session_of_another_user(world: Deployment, jwt: str) -> tuple[str, str]:
    bobs = claims_of((await world.signed_in("bob")).access_token)
    return NOTES_SERVER, forged(world, jwt, tsid=bobs["tsid"], client_id=bobs["client_id"])


async def session_of_another_client(world: Deployment, jwt: str) -> tuple[str, str]:
    other = claims_of((await world.signed_in("alice")).access_token)
    return NOTES_SERVER, forged(world, jwt, tsid=other["tsid"])


async def session_for_another_resource(world: Deployment, jwt: str) -> tuple[str, str]:
    """Alice's own session at the other server, shown by the server that wants that one's token."""
    other = claims_of((await world.signed_in("alice", resource=TASKS)).access_token)
    return NOTES_SERVER, forged(
        world, jwt, tsid=other["tsid"], client_id=other["client_id"], aud=NOTES
    )


async def revoked_session(world: Deployment, jwt: str) -> tuple[str, str]:
    revoked = await world.call(
        "POST", "/oauth/revoke", data={"token": jwt, "client_id": claims_of(jwt)["client_id"]}
    )
    assert revoked.status == 200
    return NOTES_SERVER, jwt


async def session_moved_to_another_owner(world: Deployment, jwt: str) -> tuple[str, str]:
    await sql(world.folder, "UPDATE sessions SET owner_name = 'tasks'")
    return NOTES_SERVER, jwt


async def session_over_before_its_token(world: Deployment, jwt: str) -> tuple[str, str]:
    await sql(world.folder, "UPDATE sessions SET expires_at = ?", int(world.clock()))
    return NOTES_SERVER, jwt
