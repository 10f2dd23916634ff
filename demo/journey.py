"""Walks the main journey and checks what it promises; every check is printed as it is made."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any, Final

from demo.findings import Findings
from demo.gauges import Gauges, Tally
from demo.layout import UPSTREAM_TOKEN_SECONDS, Layout, Server
from demo.mcp_client import Connection, connect, sign_in
from demo.narration import Narrator
from demo.upstream import USERS

CONCURRENT_CALLS: Final = 8


class Journey:
    """Alice and Bob use the first server; the second one is the neighbour that must get nothing."""

    def __init__(self, layout: Layout, gauges: Gauges, narrator: Narrator, findings: Findings):
        self._layout, self._gauges = layout, gauges
        self._tell, self._findings = narrator, findings
        self._server, self._neighbour = layout.servers[:2]

    async def walk(self) -> None:
        async with AsyncExitStack() as stack:
            alice = await self._sign_in("alice", stack)
            expires_at = time.monotonic() + UPSTREAM_TOKEN_SECONDS
            await self._calls_stay_in_the_sidecar(alice)
            bob = await self._sign_in("bob", stack)
            await self._each_sees_their_own(alice, bob)
            await self._neighbour_gets_nothing(alice)
            await self._one_refresh_after_expiry(alice, expires_at)

    async def _sign_in(self, username: str, stack: AsyncExitStack) -> Connection:
        user = USERS[username]
        self._tell.chapter(f"{user.name} connects an MCP client to {self._server.resource}")
        before = await self._gauges.tally(self._server)
        connection = await stack.enter_async_context(
            sign_in(
                self._server.resource,
                username=user.login,
                password=user.password,
                on_hop=self._tell.hop,
            )
        )
        redeemed = (await self._gauges.upstream(username))["code_redemptions"]
        self._findings.expect(redeemed == 1, f"{username} signed in upstream once", redeemed)
        tally = (await self._gauges.tally(self._server)).since(before)
        self._findings.expect(
            tally.releases == 1,
            "the authserver released one token, before the MCP server saw its first message",
            tally,
        )
        return connection

    async def _calls_stay_in_the_sidecar(self, alice: Connection) -> None:
        self._tell.chapter("Alice calls the tool whoami twice")
        for _ in range(2):
            tally = await self._whoami("alice", alice)
            self._findings.expect(
                tally.hits > 0 and (tally.misses, tally.releases) == (0, 0),
                "the token came from the sidecar's memory, without the authserver",
                tally,
            )

    async def _each_sees_their_own(self, alice: Connection, bob: Connection) -> None:
        self._tell.chapter("Each user sees their own account")
        await self._whoami("alice", alice)
        await self._whoami("bob", bob)

    async def _whoami(self, username: str, connection: Connection, calls: int = 1) -> Tally:
        """Make `calls` calls at once and check that each sees the user's own account."""
        user, before = USERS[username], await self._gauges.tally(self._server)
        begun = time.perf_counter()
        accounts = await asyncio.gather(*(connection.whoami() for _ in range(calls)))
        seconds = time.perf_counter() - begun
        tally = (await self._gauges.tally(self._server)).since(before)
        self._tell.calls(seconds, tally)
        own = {"login": user.login, "id": user.id, "name": user.name}
        says = "whoami says" if calls == 1 else f"all {calls} calls say"
        self._findings.expect(accounts == [own] * calls, f"{says} {username}", accounts)
        return tally

    async def _neighbour_gets_nothing(self, alice: Connection) -> None:
        name = self._neighbour.name
        self._tell.chapter(f"The sidecar of {name} presents Alice's JWT, which is not for {name}")
        status, answer = await self._ask_sidecar(self._neighbour, alice.jwt)
        self._findings.expect(
            (status, answer.get("error")) == (401, "invalid_token"),
            f"the sidecar of {name} answers 401 invalid_token",
            f"{status} {answer.get('error')}",
        )
        self._findings.expect("access_token" not in answer, f"{name} got no token")
        status, answer = await self._ask_sidecar(self._server, alice.jwt)
        self._findings.expect(
            status == 200 and "access_token" in answer,
            f"the same JWT opens the sidecar of {self._server.name}",
            f"{status} {answer.get('error')}",
        )

    async def _ask_sidecar(self, server: Server, jwt: str) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {jwt}", "X-Tokenward": "1"}
        url = f"{server.sidecar}/v1/token"
        async with self._gauges.http.post(url, headers=headers, json={}) as answer:
            return answer.status, await answer.json()

    async def _one_refresh_after_expiry(self, alice: Connection, expires_at: float) -> None:
        if (await self._gauges.upstream("alice"))["refreshes"]:
            # On a slow machine the token ended during an earlier chapter; its successor ends too.
            expires_at = time.monotonic() + UPSTREAM_TOKEN_SECONDS
        wait = max(0.0, expires_at - time.monotonic()) + 0.5
        self._tell.chapter(
            f"{wait:.0f} s later Alice's upstream token, good for {UPSTREAM_TOKEN_SECONDS} s, "
            f"has expired; she makes {CONCURRENT_CALLS} calls at once"
        )
        await asyncio.sleep(wait)
        before = await self._gauges.upstream("alice")
        async with connect(self._server.resource, alice.jwt, self._tell.hop) as side_by_side:
            await self._whoami("alice", side_by_side, CONCURRENT_CALLS)
        after = await self._gauges.upstream("alice")
        self._findings.expect(
            after["refreshes"] == before["refreshes"] + 1,
            "the refresh token went upstream exactly once",
            f"{before['refreshes']} before, {after['refreshes']} after",
        )
        reuses = after["reuse_detections"]
        self._findings.expect(reuses == 0, "no spent refresh token was presented", reuses)
        bobs = (await self._gauges.upstream("bob"))["refreshes"]
        self._findings.expect(bobs == 0, "Bob's tokens were left alone", bobs)
