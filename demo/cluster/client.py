"""`python -m demo.cluster.client`: the Job that walks the journey inside the cluster.

From a 401 through sign-in and consent to tool calls, every hop printed. It exits with 1 when
something did not hold.
"""

import asyncio
import logging
import ssl
import sys
import time
from contextlib import AsyncExitStack
from typing import Any, Final

import aiohttp

from demo.cluster.places import InClusterServer, Places
from demo.findings import Findings
from demo.layout import UPSTREAM_TOKEN_SECONDS
from demo.mcp_client import Connection, connect, sign_in
from demo.narration import Narrator
from demo.upstream import USERS

CALLS_AT_ONCE: Final = 8
_READY_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 1.0


class NotReady(Exception):
    """A part of the demo did not answer in time; the text is its URL and the last answer."""


class InClusterJourney:
    """Alice and Bob use `notes`; Alice then uses `plain`, which is behind the gateway."""

    def __init__(self, http: aiohttp.ClientSession, places: Places, findings: Findings) -> None:
        self._http, self._places, self._findings = http, places, findings
        self._notes, self._plain = places.servers
        self._tell = Narrator(places)

    async def walk(self) -> None:
        """Raises NotReady; everything else is a finding."""
        await self._wait_until_all_answer()
        async with AsyncExitStack() as stack:
            alice = await self._sign_in("alice", self._notes, stack)
            bob = await self._sign_in("bob", self._notes, stack)
            await self._each_sees_their_own(alice, bob)
            await self._one_refresh_after_expiry(alice)
        await self._the_plain_server()

    async def _wait_until_all_answer(self) -> None:
        urls = [
            self._places.metadata,
            f"{self._places.upstream}/.well-known/openid-configuration",
            *(one.resource_metadata for one in self._places.servers),
        ]
        begun = time.monotonic()
        for url in urls:
            await self._wait_for(url, begun + _READY_SECONDS)
        _say(f"Everything answers after {time.monotonic() - begun:.1f} s")

    async def _wait_for(self, url: str, end: float) -> None:
        while True:
            try:
                async with self._http.get(url) as answer:
                    outcome: object = answer.status
            except (aiohttp.ClientError, TimeoutError) as error:
                outcome = type(error).__name__
            if outcome == 200:
                return
            if time.monotonic() > end:
                raise NotReady(f"{url}: {outcome}")
            await asyncio.sleep(_POLL_SECONDS)

    async def _sign_in(
        self, username: str, server: InClusterServer, stack: AsyncExitStack
    ) -> Connection:
        user, before = USERS[username], await self._counts(username)
        self._tell.chapter(f"{user.name} connects an MCP client to {server.resource}")
        connection = await stack.enter_async_context(
            sign_in(
                server.resource,
                username=user.login,
                password=user.password,
                on_hop=self._tell.hop,
            )
        )
        redeemed = (await self._counts(username))["code_redemptions"] - before["code_redemptions"]
        self._findings.expect(redeemed == 1, f"{username} signed in upstream once", redeemed)
        await self._whoami(username, connection)
        return connection

    async def _each_sees_their_own(self, alice: Connection, bob: Connection) -> None:
        self._tell.chapter("Each user sees their own account")
        await self._whoami("bob", bob)
        await self._whoami("alice", alice)

    async def _one_refresh_after_expiry(self, alice: Connection) -> None:
        wait = UPSTREAM_TOKEN_SECONDS + 0.5
        self._tell.chapter(
            f"{wait:.0f} s later Alice's upstream token has expired; "
            f"she makes {CALLS_AT_ONCE} calls at once"
        )
        await asyncio.sleep(wait)
        before = await self._counts("alice")
        async with connect(self._notes.resource, alice.jwt, self._tell.hop) as side_by_side:
            await self._whoami("alice", side_by_side, CALLS_AT_ONCE)
        after = await self._counts("alice")
        self._findings.expect(
            after["refreshes"] == before["refreshes"] + 1,
            "the refresh token went upstream exactly once",
            f"{before['refreshes']} before, {after['refreshes']} after",
        )
        reuses = after["reuse_detections"]
        self._findings.expect(reuses == 0, "no spent refresh token was presented", reuses)

    async def _the_plain_server(self) -> None:
        url = self._plain.resource
        self._tell.chapter(f"A stranger calls {url}, a server without OAuth behind the gateway")
        async with self._http.post(url, json={}) as answer:
            challenge = answer.headers.get("WWW-Authenticate", "")
            self._findings.expect(
                answer.status == 401 and self._plain.resource_metadata in challenge,
                "the gateway answers 401, and says where to read about it",
                f"{answer.status} {challenge}",
            )
        async with AsyncExitStack() as stack:
            await self._sign_in("alice", self._plain, stack)

    async def _whoami(self, username: str, connection: Connection, calls: int = 1) -> None:
        user = USERS[username]
        accounts = await asyncio.gather(*(connection.whoami() for _ in range(calls)))
        own = {"login": user.login, "id": user.id, "name": user.name}
        says = "whoami says" if calls == 1 else f"all {calls} calls say"
        self._findings.expect(accounts == [own] * calls, f"{says} {username}", accounts)

    async def _counts(self, user: str) -> dict[str, int]:
        async with self._http.get(f"{self._places.upstream}/control/stats") as answer:
            counts: dict[str, dict[str, int]] = await answer.json()
            return counts[user]


async def walk(places: Places, findings: Findings) -> None:
    """Walk the journey; what goes wrong is in `findings`."""
    trusted = aiohttp.TCPConnector(ssl=ssl.create_default_context())
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(connector=trusted, timeout=timeout) as http:
        try:
            await InClusterJourney(http, places, findings).walk()
        except Exception as error:  # noqa: BLE001 - the edge: report it plainly
            findings.broken.extend(_lines(error))


def _lines(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [line for inner in error.exceptions for line in _lines(inner)]
    return [f"{type(error).__name__}: {error}"]


def main() -> int:
    # We report what the SDK logs, once.
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    begun, findings, places = time.monotonic(), Findings(_say), Places()
    asyncio.run(walk(places, findings))
    if findings.broken:
        _say("\nDid not hold:")
        for statement in dict.fromkeys(findings.broken):
            _say(f"  - {statement}")
        return 1
    _say(f"\nEverything held, in {time.monotonic() - begun:.1f} s.")
    return 0


def _say(line: Any) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
