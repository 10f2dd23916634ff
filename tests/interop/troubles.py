"""What goes wrong after a client's first sign-in, and how the client comes back to a tool call."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from demo.upstream import USERS
from tests.interop.driving import CallFailed, ClientProcess, client_process
from tests.interop.world import AUTHSERVER, MCP_SERVER, PARTS, SIDECAR, World

ALICE: Final = {"login": USERS["alice"].login, "id": USERS["alice"].id, "name": USERS["alice"].name}

# A client that fails more often has not come back.
_MAX_FAILED: Final = 4
# An end of a session reaches the sidecar within two seconds; calls take at least milliseconds.
_MAX_CALLS_BEFORE_THE_NEWS: Final = 2000


@dataclass(frozen=True)
class Recovery:
    """What it took until the tool answered again: failed calls, and sign-ins."""

    failed: int
    sign_ins: int


async def outcome(client: ClientProcess) -> object:
    """What one call came to: the account, or the error the client showed."""
    try:
        return await client.whoami()
    except CallFailed as failed:
        return str(failed)


async def recovery(client: ClientProcess, *, since: int | None = None) -> Recovery:
    """Call until the tool answers, and then twice more, which has to be free of all trouble.

    `since`: the number of sign-ins before the trouble, where calls were made after it.
    """
    before, errors = client.sign_ins if since is None else since, list[object]()
    while (found := await outcome(client)) != ALICE:
        errors.append(found)
        assert len(errors) <= _MAX_FAILED, errors
    needed = Recovery(len(errors), client.sign_ins - before)
    assert [await outcome(client) for _ in range(2)] == [ALICE] * 2
    assert client.sign_ins - before == needed.sign_ins
    return needed


async def session_ended(here: World, client: ClientProcess) -> Recovery:
    """The session was revoked; calls go on until the sidecar has heard of it."""
    assert await here.end_sessions() == 1
    before = client.sign_ins
    for _ in range(_MAX_CALLS_BEFORE_THE_NEWS):
        found = await outcome(client)
        if found != ALICE or client.sign_ins > before:
            break
    rest = await recovery(client, since=before)
    return Recovery(rest.failed + (found != ALICE), rest.sign_ins)


async def authserver_away(here: World, client: ClientProcess) -> Recovery:
    """It is away while upstream tokens run out; a call in between fails, and is not counted."""
    await here.stop(AUTHSERVER)
    before = client.sign_ins
    while await outcome(client) == ALICE:  # out of the sidecar's memory, for two seconds at most
        pass
    await here.start(AUTHSERVER)
    return await recovery(client, since=before)


async def authserver_away_at_a_refresh(here: World, client: ClientProcess) -> Recovery:
    """The client's own access token ends while the authserver is away, and one call is tried."""
    await here.stop(AUTHSERVER)
    await client.expire()
    before = client.sign_ins
    assert await outcome(client) != ALICE
    await here.start(AUTHSERVER)
    return await recovery(client, since=before)


async def key_rotated(here: World, client: ClientProcess) -> Recovery:
    """A key is announced, then it signs, and the old one verifies what it signed.

    A restart of the MCP server stands for the end of its cache of the JWKS.
    """
    key = here.new_signing_key("second.pem")
    before = client.sign_ins

    def announce(configuration: dict[str, Any]) -> None:
        configuration["signingKeys"].append({**key, "announced": True})

    def rotate(configuration: dict[str, Any]) -> None:
        configuration["signingKeys"] = [key, configuration["signingKeys"][0]]

    here.configure(announce)
    await here.restart(AUTHSERVER, MCP_SERVER)
    announced = await recovery(client)
    here.configure(rotate)
    await here.restart(AUTHSERVER)
    assert await recovery(client) == Recovery(0, 0)
    await client.expire()
    renewed = await recovery(client)
    assert (announced.sign_ins, client.sign_ins) == (0, before)
    return renewed


async def key_lost(here: World, client: ClientProcess) -> Recovery:
    """Another key takes the place of the only one: no access token verifies any more."""
    key = here.new_signing_key("second.pem")

    def replace(configuration: dict[str, Any]) -> None:
        configuration["signingKeys"] = [key]

    here.configure(replace)
    await here.restart(*PARTS)  # the MCP server would know the old key for some time
    return await recovery(client)


async def resource_moved(here: World, client: ClientProcess) -> Recovery:
    """Another workload serves the same URL; it gets no token of the first one's sessions."""
    await here.move_to_other_workload()
    return await recovery(client)


async def scope_added(here: World, client: ClientProcess) -> Recovery:
    """The MCP server wants one more scope, and answers 403 `insufficient_scope` without it.

    The 403 of the official server SDK names no scope. Clients know the old ones, ask for those
    again, or refresh: `requiredScopes` gives them what they do not ask for.
    """

    def widen(configuration: dict[str, Any]) -> None:
        resource = configuration["resources"][0]
        resource["scopes"] = resource["requiredScopes"] = ["mcp", "notes:write"]

    here.configure(widen)
    here.scopes = "mcp notes:write"
    await here.restart(AUTHSERVER, SIDECAR, MCP_SERVER)
    return await recovery(client)


async def refresh_race(here: World, name: str, folder: Path) -> Recovery:
    """Two processes with one store present one refresh token at the same moment."""
    shared = folder / "shared"
    await asyncio.to_thread(shared.mkdir)
    async with client_process(name, here.mcp_server, folder, shared=shared) as first:
        assert await first.whoami() == ALICE
        async with client_process(name, here.mcp_server, folder, shared=shared) as second:
            assert await second.whoami() == ALICE
            assert (first.sign_ins, second.sign_ins) == (1, 0)
            await first.expire()
            await second.expire()
            one, other = await asyncio.gather(recovery(first), recovery(second))
    return Recovery(one.failed + other.failed, one.sign_ins + other.sign_ins)


Trouble = Callable[[World, ClientProcess], Awaitable[Recovery]]
SHORT, LONG = 2, 3600

# By the words of docs/reference/clients.md: the trouble, and the life of upstream tokens for it.
TROUBLES: Final[dict[str, tuple[Trouble, int]]] = {
    "the session is revoked": (session_ended, LONG),
    "the authserver is away": (authserver_away, SHORT),
    "it is away when the client's token ends": (authserver_away_at_a_refresh, LONG),
    "the signing key is rotated": (key_rotated, LONG),
    "the signing key is lost": (key_lost, LONG),
    "the resource moves to another workload": (resource_moved, LONG),
    "the MCP server wants one more scope": (scope_added, LONG),
}
RACE: Final = "two processes refresh at once"
